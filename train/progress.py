"""What a person sees while training: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class EpochProgress:
    """Shows the epochs of one training; use it as a context."""

    def __init__(self, what: str, epochs: int, console: Console) -> None:
        self.what = what
        self.epochs = epochs
        self.console = console
        self._bar: Progress | None = None

    def __enter__(self) -> EpochProgress:
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._task = self._bar.add_task(self.what, total=self.epochs, figures="")
            self._bar.start()
        return self

    def epoch(self, epoch: int, figures: str) -> None:
        """An epoch (from 1) is done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=epoch, figures=figures)
        else:
            say(self.console, f"{self.what}: epoch {epoch}/{self.epochs}, {figures}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def say(console: Console, line: str) -> None:
    """One plain line: no markup, no colours, no wrapping."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
