"""Exact resume: kill trainings at random moments, let them go on, and compare every byte.

A run's step stands in shared memory: a kill counts only before the run's result is there, and the
report says how many fell between two epochs' ends. Sweeps follow, see sweeps.py.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks.inputs.caches import make_shapes, run_stage_1
from benchmarks.measuring.victims import Work, ended, finish, start
from benchmarks.resume.sweeps import SweepReport, run_sweep_campaigns
from train.config import load_experiment
from train.step import TrainingStep
from train.trainer import train
from vqa_cache.signals import EXIT_STOPPED, StopSignal

IMAGE = "timm:resnet18:random=0:tap=layer1"
SETTINGS = (
    # every kind of state: batch norm, dropout, momentum, a schedule, fractions of an epoch
    ("mlp_answers", "train.snapshot_every=0.3", "train.evaluate_every=0.5"),
    ("cosine_answers", "train.snapshot_every=0.1", "head.dropout=0.3", "train.keep_last=3"),
    ("linear_answers", "train.snapshot_every=1", "optimizer.name=sgd", "optimizer.momentum=0.9"),
)
EPOCHS = 4
FEATURES = ("features.dataset=shapes", f"features.image={IMAGE}")
SHORT = (*FEATURES, "train.batch_size=64", f"train.epochs={EPOCHS}")


@dataclass
class Report:
    """What the campaign found."""

    kills: int = 0
    kills_mid_epoch: int = 0
    trials: int = 0
    differing_bytes: int = 0
    differing_files: list[str] = field(default_factory=list)
    sigterms: int = 0
    sigterm_seconds_max: float = 0.0
    sigterm_exit_codes: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Campaign:
    """One experiment that is trained again and again."""

    name: str
    overrides: tuple[str, ...]
    epochs: int
    cache: Path
    folder: Path
    steps: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 8))

    @property
    def log(self) -> Path:
        """What its victims said."""
        return self.folder / "victims.log"

    def train_into(self, runs: Path) -> Work:
        """The work of a victim; the steps that it has done stand in shared memory."""
        return partial(self._train, runs)

    def _train(self, runs: Path, stopping: StopSignal) -> None:
        take_step = TrainingStep.__call__

        def told_step(engine: TrainingStep, inputs: Any, targets: Any, step: int) -> Any:
            loss = take_step(engine, inputs, targets, step)
            self.steps[:8] = struct.pack("q", step + 1)
            return loss

        TrainingStep.__call__ = told_step  # type: ignore[assignment, method-assign]
        experiment = load_experiment(self.name, self.overrides)
        train(experiment, cache=self.cache, runs=runs, console=Console(), stopping=stopping)


@click.command("resume")
@click.option("--kills", default=210, show_default=True, help="At least so many.")
@click.option("--sigterms", default=21, show_default=True, help="At least so many.")
@click.option("--sweep-kills", default=50, show_default=True, help="At least so many.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(kills: int, sigterms: int, sweep_kills: int, seed: int, as_json: bool) -> None:
    """Kill and stop trainings and sweeps, go on, compare with what nothing interrupted."""
    began = time.monotonic()
    draw = random.Random(seed)
    report, sweeps = Report(), SweepReport()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes = make_shapes(folder / "shapes", images=120, questions=2400)
        cache = run_stage_1(folder / "cache", "shapes", IMAGE, "--root", str(shapes))
        for number, (experiment, *overrides) in enumerate(SETTINGS):
            own = folder / experiment
            own.mkdir()
            campaign = Campaign(experiment, (*SHORT, *overrides), EPOCHS, cache, own)
            share = (number + 1) / len(SETTINGS)
            run_campaign(campaign, report, draw, kills=kills * share, sigterms=sigterms * share)
        seconds = time.monotonic() - began
        run_sweep_campaigns(cache, FEATURES, folder, sweeps, draw, kills=sweep_kills)
    figures = {
        **asdict(report),
        "sigterm_seconds_max": round(report.sigterm_seconds_max, 3),
        "sigterm_exit_codes": sorted(set(report.sigterm_exit_codes)),
        "seconds": round(seconds, 1),
        **asdict(sweeps),
        "sweep_seconds": round(time.monotonic() - began - seconds, 1),
    }
    if as_json:
        click.echo(json.dumps(figures))
    else:
        for key, value in figures.items():
            click.echo(f"{key}: {value}")
    wrong_exits = set(report.sigterm_exit_codes) - {EXIT_STOPPED}
    if report.differing_bytes or wrong_exits or not sweeps.same:
        sys.exit(1)


def run_campaign(
    campaign: Campaign, report: Report, draw: random.Random, *, kills: float, sigterms: float
) -> None:
    """Trials of one experiment until the report counts that many kills and stops in all."""
    reference, seconds = campaign.folder / "reference", 0.0
    for _ in range(2):  # the first one warms caches up
        shutil.rmtree(reference, ignore_errors=True)
        began = time.monotonic()
        finish(campaign.train_into(reference), campaign.log)
        seconds = time.monotonic() - began
    expected = outcome(reference)
    [result] = reference.glob("*/result.json")
    done = json.loads(result.read_text())["steps"]
    rhythm = Rhythm(campaign.steps, seconds / 3, done // campaign.epochs)
    while report.kills < kills or report.sigterms < sigterms:
        runs = campaign.folder / f"trial-{report.trials}"
        number = signal.SIGKILL if report.kills < kills else signal.SIGTERM
        for _ in range(draw.randint(2, 6)):
            if not interrupt(campaign, runs, rhythm, report, draw, number):
                break
        if not finished(runs):
            finish(campaign.train_into(runs), campaign.log)
        compare(campaign, expected, outcome(runs), report)
        report.trials += 1
        shutil.rmtree(runs)


@dataclass(frozen=True)
class Rhythm:
    """When a victim may be hit.

    Attributes:
        steps: shared memory, the steps that the victim has done.
        longest: seconds after its first step at most.
        steps_per_epoch: of every training of the run, baselines too.
    """

    steps: mmap.mmap
    longest: float
    steps_per_epoch: int

    def step(self) -> int:
        """Steps done by the victim."""
        return int(struct.unpack("q", self.steps[:8])[0])


def interrupt(
    campaign: Campaign,
    runs: Path,
    rhythm: Rhythm,
    report: Report,
    draw: random.Random,
    number: signal.Signals,
) -> bool:
    """Train, or go on, until a signal at a random moment; False when the run was done before."""
    rhythm.steps[:8] = struct.pack("q", 0)
    victim = start(campaign.train_into(runs), campaign.log)
    while not rhythm.step() and not ended(victim):
        time.sleep(0.001)  # loading is over with the first step
    time.sleep(draw.uniform(0, rhythm.longest))
    if ended(victim):
        return False
    began = time.monotonic()
    os.kill(victim, number)
    code = os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1])
    if finished(runs):
        return False
    if number == signal.SIGKILL:
        report.kills += 1
        report.kills_mid_epoch += bool(rhythm.step() % rhythm.steps_per_epoch)
    else:
        report.sigterms += 1
        seconds = time.monotonic() - began
        report.sigterm_seconds_max = max(report.sigterm_seconds_max, seconds)
        report.sigterm_exit_codes.append(code)
    return True


def finished(runs: Path) -> bool:
    """Whether the run has its result."""
    return any(runs.glob("*/result.json"))


def outcome(runs: Path) -> dict[str, bytes]:
    """Every file that must not differ: all but times, events and locks."""
    return {
        str(path.relative_to(runs)): path.read_bytes()
        for path in sorted(runs.rglob("*"))
        if path.is_file()
        and path.name not in ("result.json", "lock")
        and not path.name.startswith(("events.", "registry."))
    }


def compare(
    campaign: Campaign, expected: dict[str, bytes], found: dict[str, bytes], report: Report
) -> None:
    """Count the bytes in which a run differs from the uninterrupted one."""
    for name in sorted({*expected, *found}):
        a, b = expected.get(name, b""), found.get(name, b"")
        differing = sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))
        if differing or (name in expected) != (name in found):
            report.differing_bytes += max(differing, 1)
            report.differing_files.append(f"{campaign.name}: {name}")
