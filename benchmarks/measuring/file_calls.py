"""What a process does to the files below a folder, seen call by call: counted, and killed, failed,
delayed or recorded at one of them.

The calls are Python's. What HDF5 and SQLite write by themselves shows in the tree that the next
call finds.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Any

JOURNAL = "journal"
_WRITES = ("pwrite", "write_bytes")
_CALLS = ("fsync", "link", "mkdir", "rename", "replace", "rmdir", "unlink")
_MOVES = ("link", "rename", "replace")  # from a name to another
_NUMBER = re.compile(r"[0-9a-f]{16,}|\d{6}|@[0-9a-f]{8}")
Tree = dict[str, tuple[int, str | None]]  # path below the folder -> inode, digest (None: a folder)


class FileCalls:
    """Watches the calls of this process.

    Attributes:
        count: calls so far.
    """

    def __init__(self, how: Mapping[str, Any], output: Path) -> None:
        """
        Args:
            how: `watch`: the folder; all files otherwise. `kill_at`: SIGKILL at this call, in the
                midst of it where it writes. `fail_at`, `errno`, `calls`: from this call on those
                that write ("writes"), or this one alone, whatever it is ("one"), fail. `pause_at`,
                `seconds`: wait before this call. `record`: a folder for the journal.
            output: `operations` in it gets a line a call.
        """
        self.count = 0
        self._how = how
        self._root = os.path.realpath(how["watch"]) if "watch" in how else "/"
        self._lock = RLock()  # a call and what it leaves are one
        self._log = os.open(output / "operations", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._inside = False
        self._pwrite, self._write_bytes = os.pwrite, Path.write_bytes
        self._write = os.write
        self._recorder = Recorder(Path(how["record"]), self._root) if "record" in how else None

    def install(self) -> None:
        """See calls from now on."""
        for name in _CALLS:
            setattr(os, name, self._seen(name, getattr(os, name)))
        os.pwrite = self._seen("pwrite", self._pwrite)
        Path.write_bytes = self._seen("write_bytes", self._write_bytes)  # type: ignore[method-assign]

    def _seen(self, name: str, original: Callable[..., Any]) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            with self._lock:
                path = None if self._inside else self._below(name, arguments, more)
                if path is None:
                    return original(*arguments, **more)
                self._inside = True
                try:
                    self._meet(name, path, arguments)
                    synced = _inode(arguments[0]) if name == "fsync" else None
                    result = original(*arguments, **more)
                    if self._recorder is not None:
                        self._recorder.note(name, synced)
                    return result
                finally:
                    self._inside = False

        return call

    def _below(self, name: str, arguments: tuple[Any, ...], more: Mapping[str, Any]) -> str | None:
        """The path that a call is about, relative to the folder; None outside of it."""
        path = arguments[1 if name in _MOVES else 0]
        folder = more.get("dir_fd")
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        elif folder is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
        path = os.path.abspath(os.fsdecode(path))
        if path != self._root and not path.startswith(self._root.rstrip("/") + "/"):
            return None
        return os.path.relpath(path, self._root)

    def _meet(self, name: str, path: str, arguments: tuple[Any, ...]) -> None:
        """What is to happen at this call."""
        number, how = self.count, self._how
        self.count += 1
        self._write(self._log, f"{name} {kind_of(path)}\n".encode())
        if number == how.get("kill_at"):
            self._half(name, arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        if number == how.get("pause_at"):
            time.sleep(how["seconds"])
        if self._fails(name, number):
            self._half(name, arguments)
            code = getattr(errno, how["errno"])
            raise OSError(code, os.strerror(code), None if name in _WRITES else path)

    def _fails(self, name: str, number: int) -> bool:
        if "fail_at" not in self._how:
            return False
        if self._how["calls"] == "writes":
            return name in _WRITES and number >= self._how["fail_at"]
        return bool(number == self._how["fail_at"])

    def _half(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Half of a write, as a kill in its midst leaves it."""
        with suppress(OSError):
            if name == "pwrite":
                file, data, place = arguments
                self._pwrite(file, data[: len(data) // 2], place)
            elif name == "write_bytes":
                path, data = arguments
                self._write_bytes(path, data[: len(data) // 2])


class Recorder:
    """Writes what every call left: the names below a folder, and the bytes of every file."""

    def __init__(self, folder: Path, root: str) -> None:
        self._folder, self._root = folder, root
        self._journal = open(folder / JOURNAL, "a", buffering=1)  # noqa: SIM115
        self._known: set[str] = set()
        self.note("begin", None)

    def note(self, call: str, synced: int | None) -> None:
        """Args: synced: the inode that was made durable."""
        line = {"call": call, "synced": synced, "tree": self._tree()}
        self._journal.write(json.dumps(line) + "\n")

    def _tree(self) -> Tree:
        found: Tree = {"": (os.stat(self._root).st_ino, None)}
        for folder, folders, files in os.walk(self._root):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                with suppress(FileNotFoundError):  # another thread's, or SQLite's
                    digest = None if name in folders else self._keep(path)
                    found[os.path.relpath(path, self._root)] = (os.stat(path).st_ino, digest)
        return found

    def _keep(self, path: str) -> str:
        with open(path, "rb") as file:
            content = file.read()
        digest = hashlib.sha256(content).hexdigest()[:32]
        if digest not in self._known:
            self._known.add(digest)
            with open(self._folder / digest, "wb") as file:
                file.write(content)
        return digest


def kind_of(path: str) -> str:
    """A path with what differs from one cache to the next left out, so that equal steps of two
    commits are told alike."""
    parts = path.split("/")
    if "tables" in parts:
        parts = parts[parts.index("tables") :]
        parts = parts[5:] or parts  # modality, model, tap, type
    elif "examples" in parts:
        parts = parts[parts.index("examples") :]
        parts = [*parts[:1], *parts[3:]] if len(parts) > 3 else parts
    for number, part in enumerate(parts):
        if part.startswith(".tmp-"):
            return "/".join([*parts[:number], ".tmp-*"])
        parts[number] = _NUMBER.sub("*", part)
    return "/".join(parts)


def _inode(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino
