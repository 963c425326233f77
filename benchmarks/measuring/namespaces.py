"""Process namespaces: two processes that have one number, as in two containers."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_NEW_USERS, _NEW_PROCESSES = 0x10000000, 0x20000000  # CLONE_NEWUSER, CLONE_NEWPID


def own_processes() -> None:
    """Let children of this process, which has one thread, be numbered from 1, out of sight of all
    others. Raises OSError where the system does not permit it."""
    user, group = os.getuid(), os.getgid()
    if user == 0:
        _unshare(_NEW_PROCESSES)
        return
    _unshare(_NEW_USERS | _NEW_PROCESSES)
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        Path("/proc/self", name).write_text(line)


def why_not() -> str | None:
    """Why processes cannot have a namespace of their own here; None where they can."""
    child = os.fork()
    if child == 0:
        try:
            own_processes()
            if os.fork() == 0:
                os._exit(0)
            os.wait()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if code == 0 else f"pid namespaces: {os.strerror(abs(code))}"


def _unshare(flags: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
