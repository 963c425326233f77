"""What every comparison of stage 2 over a scale cache begins with."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import vqa_cache
from benchmarks.inputs.scale_cache import FEATURES as SCALE_FEATURES
from benchmarks.inputs.scale_cache import TEXT
from benchmarks.measuring.trainings import begin_training
from train.config.files import load_experiment
from train.config.schema import Config
from train.engine.data import load_data
from train.loop.fit import Training
from vqa_cache.system.device import CPU

FEATURES = (*SCALE_FEATURES, "train.epochs=1", "train.snapshot_every=0")
HEADS = {
    "linear": ("linear_answers",),
    "mlp1536": (
        "mlp_answers",
        "head.hidden=[1536]",
        "head.batch_norm=true",
        "head.dropout_input=0.2",
        "head.dropout=0.5",
    ),
    "cosine": ("cosine_answers", "head.hidden=[]", f"features.answer_text={TEXT}"),
}
TURN_SECONDS = 1.0


class Bench:
    """The loaded cache, and trainings over it whose logs `logs` closes."""

    def __init__(self, cache: Path, folder: Path, *, rounds: int) -> None:
        self.folder = folder
        self.rounds = rounds
        self.logs = ExitStack()
        experiment = load_experiment("cosine_answers", [*FEATURES, f"features.answer_text={TEXT}"])
        self.data = load_data(experiment, vqa_cache.open(cache), device=CPU)

    def config(self, head: str, batch_size: int) -> Config:
        """An experiment of the benchmark."""
        name, *overrides = HEADS[head]
        more = [*FEATURES, *overrides, f"train.batch_size={batch_size}"]
        return load_experiment(name, more).config

    def training(self, head: str, batch_size: int) -> Training:
        """A training that stands at its first step."""
        folder = self.folder / f"{head}-{batch_size}-{time.monotonic_ns()}"
        training = begin_training(self.config(head, batch_size), self.data, folder)
        self.logs.callback(training.log.close)
        return training


def looping(training: Training) -> Callable[[], object]:
    """The next step of a training that begins again at its end."""

    def step() -> None:
        if training.step == training.total:
            training.step = 0
        training.train_step()

    return step


def repeated(step: Callable[[], object], batch_size: int) -> Callable[[], float]:
    """A turn of so many steps that it lasts about a second."""
    step()
    seconds = max(timed(step), 1e-4)
    steps = max(1, round(TURN_SECONDS / seconds))

    def turn() -> float:
        for _ in range(steps):
            step()
        return float(steps * batch_size)

    return turn


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
