"""How much memory a process may still take: of the machine, and of the control groups that it is in
(a container, a job of a batch system), whose limit ends it without a word."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# version of control groups -> limit, use, and what of the use is files that can be dropped
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def available_memory(system: Path = Path("/")) -> int:
    """Bytes that can be used without swapping and within the limits of all control groups.

    Args:
        system: where /proc and /sys are.
    """
    return max(0, min([_of_machine(system), *_of_groups(system)]))


def _of_machine(system: Path) -> int:
    with suppress(OSError), open(system / "proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _of_groups(system: Path) -> Iterator[int]:
    """What each group that holds this process, and each one above it, has left."""
    with suppress(OSError):
        for line in (system / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            version = 1 if controllers else 2
            root = system / "sys/fs/cgroup" / controllers
            inner = path.strip("/")
            for folder in (root / inner, *(root / inner).parents):
                with suppress(OSError, ValueError):  # no limit ("max"), or no such group in here
                    yield _left(folder, version)
                if folder == root:
                    break


def _left(folder: Path, version: int) -> int:
    """Raises OSError or ValueError where a group has no limit."""
    limit, used, droppable = _FILES[version]
    left = int((folder / limit).read_text()) - int((folder / used).read_text())
    for line in (folder / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == droppable:
            left += int(value)
    return left
