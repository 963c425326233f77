"""Sweeps that are killed at random moments: no trial is lost, none is there twice, none differs."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.measuring.victims import Work, ended, finish, start
from train.fit import Watch
from train.sweep.record import TRIALS
from train.sweep.request import Request
from train.sweep.run import sweep
from train.sweep.space import parse_space
from vqa_cache.signals import StopSignal

SMALL = ("mlp_answers", "head.hidden=[16]", "train.batch_size=64")
RESULT = "result.json"  # of a sweep that ended
# name -> what varies and how it is sought; every sweep has several packs and a winner
SWEEPS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "grid": (
        ("optimizer.lr=1e-4,1e-3,1e-2", "head.dropout=0,0.5", "seed=0,1", "train.epochs=1"),
        {"sampler": "grid", "pruner": "none", "trials": 12, "lanes": 3},
    ),
    "tpe": (
        ("optimizer.lr=log:1e-5:1e-1", "optimizer.weight_decay=log:1e-3:10", "train.epochs=1"),
        {"sampler": "tpe", "pruner": "none", "trials": 16, "lanes": 4},
    ),
    "halving": (
        ("optimizer.lr=log:1e-5:1e1", "head.dropout=uniform:0:0.9", "train.epochs=4"),
        {"sampler": "random", "pruner": "halving", "trials": 16, "lanes": 8},
    ),
}


@dataclass
class SweepReport:
    """What the campaigns found.

    Attributes:
        sweep_differing: trials and winners that differ from those of the undisturbed sweep.
    """

    sweep_kills: int = 0
    sweeps: int = 0
    trials_lost: int = 0
    trials_doubled: int = 0
    sweep_differing: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether every sweep came to what the undisturbed one came to."""
        return not (self.trials_lost or self.trials_doubled or self.sweep_differing)


@dataclass(frozen=True)
class SweepCampaign:
    """One sweep that is run again and again."""

    name: str
    request: Request
    cache: Path
    folder: Path

    @property
    def log(self) -> Path:
        """What its victims said."""
        return self.folder / "victims.log"

    def sweep_into(self, runs: Path) -> Work:
        """The work of a victim."""
        return partial(self._sweep, runs)

    def _sweep(self, runs: Path, stopping: StopSignal) -> None:
        watch = Watch(Console(), stopping=stopping)
        result = sweep(self.request, cache=self.cache, runs=runs, watch=watch)
        (runs / RESULT).write_text(json.dumps(result))


def run_sweep_campaigns(
    cache: Path,
    overrides: Sequence[str],
    folder: Path,
    report: SweepReport,
    draw: random.Random,
    *,
    kills: int,
) -> None:
    """Kill sweeps of every kind, as many times each, until the report counts `kills` in all.

    Args:
        overrides: what makes `mlp_answers` read the cache.
    """
    for number, (name, (words, how)) in enumerate(SWEEPS.items(), start=1):
        own = folder / f"sweep-{name}"
        own.mkdir()
        space = parse_space([*SMALL, *overrides, *words])
        request = Request(space=space, seed=0, winners=1, **how)
        campaign = SweepCampaign(name, request, cache, own)
        run_sweep_campaign(campaign, report, draw, kills=kills * number / len(SWEEPS))


def run_sweep_campaign(
    campaign: SweepCampaign, report: SweepReport, draw: random.Random, *, kills: float
) -> None:
    """Run one sweep again and again until the report counts so many kills."""
    reference, seconds = campaign.folder / "reference", 0.0
    for _ in range(2):  # the first one warms caches up
        shutil.rmtree(reference, ignore_errors=True)
        began = time.monotonic()
        finish(campaign.sweep_into(reference), campaign.log)
        seconds = time.monotonic() - began
    while report.sweep_kills < kills:
        runs = campaign.folder / f"sweep-{report.sweeps}"
        for _ in range(draw.randint(2, 6)):
            if not kill(campaign, runs, draw.uniform(0, seconds / 2)):
                break
            report.sweep_kills += 1
        if not (runs / RESULT).exists():
            finish(campaign.sweep_into(runs), campaign.log)
        compare(campaign.name, reference, runs, report)
        report.sweeps += 1
        shutil.rmtree(runs)


def kill(campaign: SweepCampaign, runs: Path, seconds: float) -> bool:
    """Sweep, or go on, for so long; False when the sweep was done before."""
    victim = start(campaign.sweep_into(runs), campaign.log)
    time.sleep(seconds)
    if ended(victim):
        return False
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
    return not (runs / RESULT).exists()


def compare(name: str, reference: Path, runs: Path, report: SweepReport) -> None:
    """Count trials that are missing, there twice, or differ, and winners that differ."""
    expected, found = trials_of(reference), trials_of(runs)
    times = Counter(row["trial"] for row in found)
    report.trials_doubled += sum(count - 1 for count in times.values())
    by_number = {row["trial"]: row for row in found}
    for row in expected:
        if row["trial"] not in by_number:
            report.trials_lost += 1
        elif by_number[row["trial"]] != row:
            report.sweep_differing.append(f"{name}: trial {row['trial']}")
    if winners_of(reference) != winners_of(runs):
        report.sweep_differing.append(f"{name}: winners")


def trials_of(runs: Path) -> list[dict[str, Any]]:
    """The lines of the sweep's record."""
    [record] = runs.glob(f"sweep-*/{TRIALS}")
    return [json.loads(line) for line in record.read_text().splitlines()]


def winners_of(runs: Path) -> list[Mapping[str, Any]]:
    """The winners, but for where they lie."""
    winners = json.loads((runs / RESULT).read_text())["winners"]
    return [{key: value for key, value in one.items() if key != "runs"} for one in winners]
