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
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.measuring.victims import ended
from benchmarks.resume.campaign import Campaign
from train.loop.training_loop import Watch
from train.sweep.record import TRIALS
from train.sweep.request import Request
from train.sweep.run import sweep
from train.sweep.space import parse_space
from vqa_cache.system.signals import StopSignal

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
class SweepCounts:
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
class SweepCampaign(Campaign):
    """One sweep that is run again and again."""

    request: Request

    def work(self, runs: Path, stopping: StopSignal) -> None:
        """Sweep."""
        watch = Watch(Console(), stopping=stopping)
        result = sweep(self.request, cache=self.cache, runs=runs, watch=watch)
        (runs / RESULT).write_text(json.dumps(result))

    def done(self, runs: Path) -> bool:
        """Whether the sweep has returned."""
        return (runs / RESULT).exists()


def sweep_campaign(name: str, overrides: Sequence[str], cache: Path, folder: Path) -> SweepCampaign:
    """The campaign of one of SWEEPS.

    Args:
        overrides: what makes `mlp_answers` read the cache.
    """
    words, how = SWEEPS[name]
    space = parse_space([*SMALL, *overrides, *words])
    return SweepCampaign(name, cache, folder, Request(space=space, seed=0, winners=1, **how))


def disturb_sweeps(
    campaign: SweepCampaign, counts: SweepCounts, draw: random.Random, *, kills: float
) -> None:
    """Run one sweep again and again until so many kills are counted in all."""
    reference, seconds = campaign.reference()
    while counts.sweep_kills < kills:
        runs = campaign.folder / f"sweep-{counts.sweeps}"

        def interrupt(runs: Path = runs) -> bool:
            killed = kill(campaign, runs, draw.uniform(0, seconds / 2))
            counts.sweep_kills += killed
            return killed

        campaign.disturb(runs, draw, interrupt)
        compare(campaign.name, reference, runs, counts)
        counts.sweeps += 1
        shutil.rmtree(runs)


def kill(campaign: SweepCampaign, runs: Path, seconds: float) -> bool:
    """Sweep, or go on, for so long; False when the sweep was done before."""
    victim = campaign.start(runs)
    time.sleep(seconds)
    if ended(victim):
        return False
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
    return not campaign.done(runs)


def compare(name: str, reference: Path, runs: Path, counts: SweepCounts) -> None:
    """Count trials that are missing, there twice, or differ, and winners that differ."""
    expected, found = trials_of(reference), trials_of(runs)
    times = Counter(row["trial"] for row in found)
    counts.trials_doubled += sum(count - 1 for count in times.values())
    by_number = {row["trial"]: row for row in found}
    for row in expected:
        if row["trial"] not in by_number:
            counts.trials_lost += 1
        elif by_number[row["trial"]] != row:
            counts.sweep_differing.append(f"{name}: trial {row['trial']}")
    if winners_of(reference) != winners_of(runs):
        counts.sweep_differing.append(f"{name}: winners")


def trials_of(runs: Path) -> list[dict[str, Any]]:
    """The lines of the sweep's record."""
    [record] = runs.glob(f"sweep-*/{TRIALS}")
    return [json.loads(line) for line in record.read_text().splitlines()]


def winners_of(runs: Path) -> list[Mapping[str, Any]]:
    """The winners, but for where they lie."""
    winners = json.loads((runs / RESULT).read_text())["winners"]
    return [{key: value for key, value in one.items() if key != "runs"} for one in winners]
