"""How long a run takes to its first step."""

from __future__ import annotations

import time
from pathlib import Path

import vqa_cache
from benchmarks.measuring.processes import run_python
from benchmarks.measuring.trainings import begin_training
from benchmarks.train.bench import FEATURES
from train.config.files import load_experiment
from train.engine.data import load_data
from vqa_cache.system.allocator import keep_freed_memory
from vqa_cache.system.device import CPU

STARTS = 3  # processes whose first step is timed; the best counts


def first_step_seconds(cache: Path, folder: Path) -> float:
    """From process start to the first optimiser step of `linear_answers`, without `import torch`,
    with the files in the page cache."""
    overrides = [*FEATURES, "train.batch_size=5000"]
    code = (
        "import time; began = time.perf_counter(); import torch; "
        "imported = time.perf_counter() - began\n"
        "from benchmarks.train.first_step import until_first_step\n"
        f"until_first_step({str(cache)!r}, {str(folder / 'first')!r}, {overrides!r})\n"
        "print(time.clock_gettime(time.CLOCK_MONOTONIC), imported)\n"
    )
    found = []
    for _ in range(STARTS):
        began = time.clock_gettime(time.CLOCK_MONOTONIC)
        ended, imported = map(float, run_python("-c", code).split())
        found.append(ended - began - imported)
    return round(min(found), 2)


def until_first_step(cache: str, folder: str, overrides: list[str]) -> None:
    """What a run does up to its first step."""
    keep_freed_memory()
    experiment = load_experiment("linear_answers", overrides)
    data = load_data(experiment, vqa_cache.open(cache), device=CPU)
    training = begin_training(experiment.config, data, Path(folder))
    training.train_step()
    training.log.close()
