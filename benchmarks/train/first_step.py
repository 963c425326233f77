"""How long a run takes to its first step: what comes after `import torch`, and everything."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import vqa_cache
from benchmarks.inputs.scale_cache import TEXT
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


_UNTIL_FIRST_STEP = """
import os, time
from train.loop.training_loop import TrainingLoop
step = TrainingLoop.train_step
def first(self):
    step(self)
    print(time.clock_gettime(time.CLOCK_MONOTONIC), flush=True)
    os._exit(0)
TrainingLoop.train_step = first
from train.__main__ import command
command()
"""


def cold_start_seconds(cache: Path, folder: Path) -> float:
    """From the start of `python -m train cosine_answers` to the end of its first step, all imports
    among it, with the files in the page cache."""
    experiment = ("cosine_answers", *FEATURES, f"features.answer_text={TEXT}", "baselines=off")
    found = []
    for number in range(STARTS):
        runs = str(folder / f"cold-{number}")
        began = time.clock_gettime(time.CLOCK_MONOTONIC)
        said = run_python(
            "-c", _UNTIL_FIRST_STEP, *experiment, "--cache", str(cache), "--runs", runs
        )
        found.append(float(said.splitlines()[-1]) - began)
    return round(median(found), 2)


def until_first_step(cache: str, folder: str, overrides: list[str]) -> None:
    """What a run does up to its first step."""
    keep_freed_memory()
    experiment = load_experiment("linear_answers", overrides)
    data = load_data(experiment, vqa_cache.open(cache), device=CPU)
    training = begin_training(experiment.config, data, Path(folder))
    training.train_step()
    training.log.close()
