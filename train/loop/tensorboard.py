"""TensorBoard events of a run: loss, learning rate, gradient norm, memory, evaluations."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


class Events:
    """Writes events beside a run's other files; a context that closes them.

    The first row waits for the second or the end: the writer takes a second to import, which the
    first step would wait for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._waiting: Mapping[str, Any] | None = None
        self._writer: Any = None

    def row(self, row: Mapping[str, Any]) -> None:
        """Write a row of the log. What an interrupted attempt wrote beyond its last snapshot is
        hidden by the first row of the next attempt."""
        if self._writer is None and self._waiting is None:
            self._waiting = dict(row)
            return
        self._write_waiting()
        self._write(row)

    def _write_waiting(self) -> None:
        if self._waiting is not None:
            from torch.utils.tensorboard import SummaryWriter

            step = self._waiting["step"]
            self._writer = SummaryWriter(str(self.folder), purge_step=step)
            self._write(self._waiting)
            self._waiting = None

    def _write(self, row: Mapping[str, Any]) -> None:
        step, group = row["step"], row.get("part", "train")
        for name, value in row.items():
            if name not in ("step", "epoch", "part") and value is not None:
                self._writer.add_scalar(f"{group}/{name}", value, step)
        self._writer.add_scalar("train/peak_memory_bytes", peak_memory(), step)

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._write_waiting()
        if self._writer is not None:
            self._writer.close()


def peak_memory() -> int:
    """The most memory that this process has had, in bytes."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
