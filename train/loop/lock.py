"""One process at a time trains in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from train.errors import TrainError

LOCK = "lock"


class LockedError(TrainError):
    """Another process trains there."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made if need be. Raises LockedError; a lock goes with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise LockedError(
                f"{folder} is being trained by process {file.read().strip()}; wait for it, or "
                "train another run beside it: --new"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
