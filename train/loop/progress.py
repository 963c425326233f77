"""What a person sees while training: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import Progress

from train.loop.selection import epochs_done
from vqa_cache.system.printing import giving_way, progress_bar


class TrainingProgress:
    """Shows one training; use it as a context."""

    def __init__(self, what: str, total: int, steps_per_epoch: int, console: Console) -> None:
        """
        Args:
            total: steps of the whole training.
        """
        self.what = what
        self.total = total
        self.steps_per_epoch = steps_per_epoch
        self.console = console
        self._bar: Progress | None = None
        self._begun: tuple[float, int] | None = None
        self._loss = ""
        self._score = ""
        self._speed = ""

    def __enter__(self) -> TrainingProgress:
        if self.console.is_terminal:
            self._bar = progress_bar(
                self.console, giving_way("{task.fields[figures]}", ratio=3), transient=True
            )
            self._task = self._bar.add_task(self.what, total=self.total, figures="")
            self._bar.start()
        return self

    def steps(self, step: int, loss: float, samples_per_second: float) -> None:
        """So many steps are done; loss of the last one."""
        self._loss = f"loss {loss:.3f}"
        self._speed = f"{samples_per_second:,.0f} samples/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, figures=self._figures(step))
        if self._begun is None:
            self._begun = time.monotonic(), step

    def evaluated(self, step: int, figures: str) -> None:
        """The model was evaluated after so many steps."""
        self._score = figures
        if self._bar is not None:
            self._bar.update(self._task, completed=step, figures=self._figures(step))
        else:
            say(self.console, f"{self.what}: {self._figures(step)}{self._left(step)}")

    def _figures(self, step: int) -> str:
        epochs = self.total // self.steps_per_epoch
        done = epochs_done(step, self.steps_per_epoch)
        done = round(done, 1) if isinstance(done, float) else done
        shown = [f"epoch {done}/{epochs}", self._loss, self._score, self._speed]
        return ", ".join(figure for figure in shown if figure)

    def _left(self, step: int) -> str:
        """Time left at the pace since the first report."""
        if self._begun is None or step <= self._begun[1] or step == self.total:
            return ""
        since, first = self._begun
        seconds = (time.monotonic() - since) / (step - first) * (self.total - step)
        minutes, rest = divmod(round(seconds), 60)
        return f", {minutes} min {rest} s left" if minutes else f", {rest} s left"

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
