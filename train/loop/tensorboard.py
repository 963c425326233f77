"""TensorBoard events of a run: loss, learning rate, gradient norm, memory, evaluations; at its end
what its table of runs (the plugin HParams) compares."""

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

    def compare(self, settings: Mapping[str, Any], accuracies: Mapping[str, float | None]) -> None:
        """What a finished run is compared by with others.

        Args:
            settings: dotted key -> value.
            accuracies: by part.
        """
        from torch.utils.tensorboard.summary import hparams

        self._write_waiting()
        if self._writer is None:  # the run was stopped after its last step
            self._open(None)
        shown = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in settings.items()
        }
        reached = {f"result/{part}": one for part, one in accuracies.items() if one is not None}
        for summary in hparams(shown, reached):
            self._writer.file_writer.add_summary(summary)
        for tag, accuracy in reached.items():
            self._writer.add_scalar(tag, accuracy)

    def _open(self, purge_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder), purge_step=purge_step)

    def _write_waiting(self) -> None:
        if self._waiting is not None:
            self._open(self._waiting["step"])
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
