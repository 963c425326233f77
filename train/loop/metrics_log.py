"""metrics.jsonl: a row per step and per evaluated epoch, a function of the run alone (no clock).

A snapshot remembers where the log stood; a run that goes on cuts the log back to that place.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import xxhash

from train.loop.checkpoint import CheckpointError

Position = dict[str, Any]  # {"bytes": length, "digest": of so many bytes}


class MetricsLog:
    """Appends rows; `close` or `sync` makes them durable."""

    def __init__(self, path: Path, position: Position | None = None) -> None:
        """
        Args:
            position: where to go on; None begins anew.

        Raises:
            CheckpointError: the file does not hold what it held at that position.
        """
        self.path = path
        self._hash = xxhash.xxh3_128()
        self._bytes = 0
        if position is not None:
            check_log(path, position)
            self._hash.update(path.read_bytes()[: position["bytes"]])
            self._bytes = position["bytes"]
        # `close` closes it
        self._file = path.open("r+b" if position else "wb")
        self._file.truncate(self._bytes)
        self._file.seek(self._bytes)

    def row(self, row: dict[str, Any]) -> None:
        """Append a row."""
        line = (json.dumps(row) + "\n").encode()
        self._file.write(line)
        self._hash.update(line)
        self._bytes += len(line)

    def sync(self) -> Position:
        """Make all rows durable; the position after the last one."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return {"bytes": self._bytes, "digest": self._hash.hexdigest()}

    def close(self) -> None:
        """Make all rows durable and close the file."""
        if not self._file.closed:
            self.sync()
            self._file.close()


def check_log(path: Path, position: Position) -> None:
    """Raises CheckpointError unless the file begins with what a snapshot's position says."""
    start = path.read_bytes()[: position["bytes"]] if path.is_file() else b""
    if xxhash.xxh3_128_hexdigest(start) != position["digest"]:
        raise CheckpointError(f"{path} is not as it was when the snapshot was made")
