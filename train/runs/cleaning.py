"""What of a runs folder can go: trainings that nobody finished, snapshots that nobody needs.

Nothing outside the runs folder is ever touched, and no link is followed. Of a run that is kept
unfinished all snapshots stay: it needs them to go on.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from train.errors import TrainError
from train.loop.layout import BEST, CHECKPOINTS, FAILURE, RESULT
from train.runs.records import is_run
from vqa_cache.system.durable import remove_whole

_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


@dataclass(frozen=True)
class Removal:
    """A folder that can go."""

    path: Path
    why: str
    bytes: int


def parse_age(text: str) -> float:
    """Seconds of "90m", "12h", "30d", "2w". Raises TrainError for anything else."""
    found = re.fullmatch(r"(\d+)([mhdw])", text)
    if not found:
        raise TrainError(f"--older-than {text}: expected a number and m, h, d or w, such as 30d")
    return float(found.group(1)) * _UNITS[found.group(2)]


def removable(runs: Path, older_than: float) -> Iterator[Removal]:
    """What can go, in the order of names.

    Args:
        older_than: seconds since the last change of an unfinished or failed run.
    """
    for folder in sorted(runs.iterdir()):
        if folder.is_symlink() or not is_run(folder):
            continue
        if (folder / RESULT).is_file():
            yield from _needless_snapshots(folder)
            continue
        size, changed = _size_and_time(folder)
        age = time.time() - changed
        if age > older_than:
            what = "failed" if (folder / FAILURE).is_file() else "unfinished"
            yield Removal(folder, f"{what}, {age / _UNITS['d']:.1f} days old", size)


def take_away(runs: Path, removal: Removal) -> None:
    """Delete a folder. Raises TrainError where it is not inside the runs folder."""
    path = removal.path
    if path.is_symlink() or runs.resolve() not in path.resolve().parents:
        raise TrainError(f"{path} is not inside {runs}: left alone")
    remove_whole(path)


def _needless_snapshots(run: Path) -> Iterator[Removal]:
    checkpoints = run / CHECKPOINTS
    if not checkpoints.is_dir() or checkpoints.is_symlink():
        return
    for path in sorted(checkpoints.iterdir()):
        if path.is_dir() and not path.is_symlink() and path.name != BEST:
            yield Removal(path, "snapshot of a finished run", _size_and_time(path)[0])


def _size_and_time(folder: Path) -> tuple[int, float]:
    """Bytes of all files below a folder, and when the newest thing in it changed."""
    size, newest = 0, folder.stat().st_mtime
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            found = os.lstat(os.path.join(parent, name))
            newest = max(newest, found.st_mtime)
            size += found.st_size if name in files else 0
    return size, newest
