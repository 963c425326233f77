"""Work that is done again and again, each time interrupted, and compared with work that nothing
interrupted."""

from __future__ import annotations

import random
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.measuring import victims
from vqa_cache.system.signals import StopSignal


@dataclass(frozen=True)
class Campaign(ABC):
    """One piece of work.

    Attributes:
        name: of the experiment or sweep.
        cache: what it trains on.
        folder: for what it writes.
    """

    name: str
    cache: Path
    folder: Path

    @abstractmethod
    def work(self, runs: Path, stopping: StopSignal) -> None:
        """What a victim does: begin in the folder `runs`, or go on."""

    @abstractmethod
    def done(self, runs: Path) -> bool:
        """Whether the work in a folder has come to its end."""

    @property
    def log(self) -> Path:
        """What its victims said."""
        return self.folder / "victims.log"

    def start(self, runs: Path) -> int:
        """A victim that works and may be killed; its process id."""
        return victims.start(partial(self.work, runs), self.log)

    def finish(self, runs: Path) -> None:
        """Work to the end, undisturbed."""
        victims.finish(partial(self.work, runs), self.log)

    def reference(self) -> tuple[Path, float]:
        """Work that nothing disturbed: its folder, and the seconds that it took."""
        runs, seconds = self.folder / "reference", 0.0
        for _ in range(2):  # the first one warms caches up
            shutil.rmtree(runs, ignore_errors=True)
            began = time.monotonic()
            self.finish(runs)
            seconds = time.monotonic() - began
        return runs, seconds

    def disturb(self, runs: Path, draw: random.Random, interrupt: Callable[[], bool]) -> None:
        """Work to the end, interrupted some times on the way.

        Args:
            interrupt: works until a signal; False when the work was done before it.
        """
        for _ in range(draw.randint(2, 6)):
            if not interrupt():
                break
        if not self.done(runs):
            self.finish(runs)
