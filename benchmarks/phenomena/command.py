"""What five published journals found, found again on `shapes` with a pretrained image encoder.

Each phenomenon is a difference between arms that are experiments with some keys changed, trained
with the same seeds and judged on the same questions: all that were not trained on, as no epoch is
selected. It is reproduced where the 95 % interval of the difference, over seeds and images, lies on
the expected side of 0.

\b
phenomena.NAME       {figures, seeds, differences, reproduced}: of each arm the means over seeds;
                     the difference of each seed; every difference with its interval
reproduced           how many of them
cosine_minus_mlp_*   accuracy of cosine_answers less that of mlp_answers, as they are (15 epochs on
                     shapes); *_rarest: of questions whose answer is of the rarest quarter of the
                     vocabulary. `differences` has their intervals
ablation             what each cause of a cosine head's failure costs, over all cells of
                     {wrong axis, right axis, centred} x {scale} x {class weights}: `costs`, and the
                     accuracy of each cell
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

import vqa_cache
from benchmarks.measuring.report import Report, json_option, reported
from benchmarks.phenomena.analysis import Judged, compared, found, judge, shown
from benchmarks.phenomena.settings import (
    ABLATION,
    BESIDE,
    EASY_ARMS,
    FACTORS,
    MAKING,
    PHENOMENA,
    SEEDS,
    SHAPES_ARMS,
    Arm,
    cosine_minus_mlp,
    factor,
)
from benchmarks.systems import encode
from data.easy_vqa import installed_folder
from data.shapes.dataset import Making, make
from train.config.files import load_experiment
from train.engine.data import hold_joined
from train.inputs.load import JoinedData, join_data
from train.loop.fit import fit
from train.loop.training_loop import Watch
from vqa_cache.cache import Cache
from vqa_cache.system.allocator import keep_freed_memory
from vqa_cache.system.commands import Command

PARTS = ("phenomena", "cosine_minus_mlp", "ablation")
ARMS = {**SHAPES_ARMS, **EASY_ARMS, **ABLATION}


@dataclass
class Trainings:
    """Arms, trained when they are first asked for.

    Attributes:
        typed: behind what each arm types: a smaller budget for a trial.
        folder: of what is trained.
    """

    cache: Cache
    folder: Path
    seeds: int
    typed: tuple[str, ...] = ()
    done: dict[str, list[Judged]] = field(default_factory=dict)

    def of(self, arms: Iterable[str], report: Report) -> Mapping[str, list[Judged]]:
        """Every arm that is trained, these among them."""
        for name in arms:
            if name not in self.done:
                report.begin(name)
                self.done[name] = self._train(ARMS[name])
        return self.done

    def _train(self, arm: Arm) -> list[Judged]:
        first = load_experiment(arm.name, [*arm.typed, *self.typed])
        at_the_end = f"train.evaluate_every={first.config.train.epochs}.0"
        typed = [*arm.typed, *self.typed, at_the_end, "train.snapshot_every=0.0"]
        joined = every(join_data(load_experiment(arm.name, typed), self.cache), arm.keep)
        data = hold_joined(joined)
        judged = []
        for seed in range(self.seeds):
            config = load_experiment(arm.name, [*typed, f"seed={seed}"]).config
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                fitted = fit(
                    config,
                    data,
                    modalities=data.tables,
                    what="",
                    folder=Path(folder),
                    watch=Watch(Console(quiet=True)),
                )
                judged.append(judge(fitted, data))
        return judged


def every(joined: JoinedData, keep: int) -> JoinedData:
    """The same with each `keep`-th of the training images, and the same vocabulary."""
    train = joined.splits["train"]
    chosen = np.zeros(len(train.split), dtype=bool)
    chosen[train.kept] = train.image % keep == 0
    return replace(joined, splits={**joined.splits, "train": train.only(chosen)})


@click.command("phenomena", cls=Command, help=__doc__)
@click.option("--images", default=MAKING.images, show_default=True)
@click.option("--questions", default=MAKING.questions, show_default=True)
@click.option("--seeds", default=SEEDS, show_default=True)
@click.option("--only", multiple=True, type=click.Choice([*PHENOMENA, *PARTS[1:]]))
@json_option
def command(images: int, questions: int, seeds: int, only: tuple[str, ...], as_json: bool) -> None:
    """`python -m benchmarks phenomena`."""
    keep_freed_memory()
    names = only or (*PHENOMENA, *PARTS[1:])
    with reported(as_json=as_json) as report, tempfile.TemporaryDirectory() as name:
        folder, making = Path(name), Making(images, questions, MAKING.seed)
        report.begin("stage 1")
        make(folder / "shapes", making)
        roots = {"shapes": folder / "shapes", "easy_vqa": installed_folder()}
        encode(ARMS.values(), roots, folder / "cache")
        measure(report, Trainings(vqa_cache.open(folder / "cache"), folder, seeds), names)


def measure(report: Report, trainings: Trainings, names: Iterable[str]) -> None:
    """Fill the report with these phenomena and parts."""
    names = list(names)
    report.figures |= {"phenomena": {}, "reproduced": 0}
    for name in [name for name in names if name in PHENOMENA]:
        contrasts, beside = PHENOMENA[name], BESIDE.get(name, ())
        arms = [*(arm for one in contrasts for arm in (*one.better, *one.worse)), *beside]
        report.figures["phenomena"][name] = one = found(
            contrasts, trainings.of(arms, report), beside
        )
        report.figures["reproduced"] += one["reproduced"]
    if "cosine_minus_mlp" in names:
        _cosine_minus_mlp(report, trainings)
    if "ablation" in names:
        trained = trainings.of(ABLATION, report)
        report.figures["ablation"] = {
            "accuracy": {name: shown(trained[name])["accuracy"] for name in ABLATION},
            "costs": {name: compared(factor(name), trained) for name in FACTORS},
        }


def _cosine_minus_mlp(report: Report, trainings: Trainings) -> None:
    differences: dict[str, Any] = {}
    report.figures["differences"] = differences
    for dataset in ("easy_vqa", "shapes"):
        for rarest in (False, True):
            contrast = cosine_minus_mlp(dataset, rarest=rarest)
            trained = trainings.of((*contrast.better, *contrast.worse), report)
            key = f"cosine_minus_mlp_{dataset}{'_rarest' if rarest else ''}"
            differences[key] = compared(contrast, trained)
            report.figures[key] = differences[key]["difference"]
