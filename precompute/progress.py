"""Telling what stage 1 does: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TaskID, TextColumn

from vqa_cache.system.lines import one_line
from vqa_cache.system.printing import progress_bar

_SECONDS_BETWEEN_LINES = 10.0


class ConsoleReporter:
    """Writes to stderr, so that stdout stays for results."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._name, self._total, self._done, self._resumed = "", 0, 0, 0
        self._started = self._told = 0.0

    def say(self, line: str) -> None:
        """One line."""
        self.console.print(one_line(line), markup=False)

    def begin(self, table: str, total: int, done: int) -> None:
        """Encoding begins; the count starts at what is there already."""
        self._name, self._total, self._done, self._resumed = table, total, done, done
        self._started = self._told = time.monotonic()
        if self.console.is_terminal:
            self._progress = progress_bar(
                self.console, MofNCompleteColumn(), TextColumn("{task.fields[rate]}")
            )
            self._task = self._progress.add_task(table, total=total, completed=done, rate="")
            self._progress.start()
        else:
            self.say(f"{table}: {done:,} of {total:,} there, encoding the rest")

    def advance(self, items: int) -> None:
        """So many items more."""
        self._done += items
        now = time.monotonic()
        rate = f"{(self._done - self._resumed) / max(now - self._started, 1e-9):,.0f} items/s"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._done, rate=rate)
        elif now - self._told > _SECONDS_BETWEEN_LINES:
            self._told = now
            self.say(f"{self._name}: {self._done:,} of {self._total:,}, {rate}")

    def end(self) -> None:
        """Encoding has ended."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
