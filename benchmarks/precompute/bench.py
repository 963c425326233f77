"""What every comparison of stage 1 is handed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.measuring.report import Report
from benchmarks.measuring.stage_one import StageOne
from benchmarks.precompute.sizes import Sizes
from vqa_cache.spec import Modality

Made = TypeVar("Made")


@dataclass(frozen=True)
class Bench:
    """Sizes, a folder to work in, the keys that were asked for, and where figures go."""

    sizes: Sizes
    folder: Path
    wanted: frozenset[str]
    rounds: int
    report: Report

    def timed(self, name: str, make: Callable[[], Made]) -> Made:
        """What `make` makes, its time told apart."""
        began = time.perf_counter()
        made = make()
        self._tell_set_up(name, time.perf_counter() - began)
        return made

    def stage(self, name: str, root: Path, spec: str, modality: Modality) -> StageOne:
        """Stage 1 over the dataset at `root`, set up."""
        stage = StageOne(root, spec, modality, self.folder / "cache")
        stage.set_up()
        self._tell_set_up(name, stage.set_up_seconds[0])
        return stage

    def _tell_set_up(self, name: str, seconds: float) -> None:
        self.report.figures[f"{name}_set_up_seconds"] = round(seconds, 2)
