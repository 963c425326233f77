"""Trainings that are killed and stopped at random moments: no byte of what they leave differs."""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import signal
import struct
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.measuring.victims import ended
from benchmarks.resume.campaign import Campaign
from train.config.files import load_experiment
from train.engine.step import TrainingStep
from train.loop.layout import RESULT
from train.trainer import train
from vqa_cache.system.signals import StopSignal


@dataclass
class RunCounts:
    """What the campaigns found."""

    kills: int = 0
    kills_mid_epoch: int = 0
    trials: int = 0
    differing_bytes: int = 0
    differing_files: list[str] = field(default_factory=list)
    sigterms: int = 0
    sigterm_seconds_max: float = 0.0
    sigterm_exit_codes: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class RunCampaign(Campaign):
    """One experiment that is trained again and again; the steps that a victim has done stand in
    shared memory."""

    overrides: tuple[str, ...]
    epochs: int
    steps: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 8))

    def work(self, runs: Path, stopping: StopSignal) -> None:
        """Train."""
        take_step = TrainingStep.__call__

        def told_step(engine: TrainingStep, inputs: Any, targets: Any, step: int) -> Any:
            loss = take_step(engine, inputs, targets, step)
            self.steps[:8] = struct.pack("q", step + 1)
            return loss

        TrainingStep.__call__ = told_step  # type: ignore[assignment, method-assign]
        experiment = load_experiment(self.name, self.overrides)
        train(experiment, cache=self.cache, runs=runs, console=Console(), stopping=stopping)

    def done(self, runs: Path) -> bool:
        """Whether the run has its result."""
        return any(runs.glob(f"*/{RESULT}"))


def disturb_runs(
    campaign: RunCampaign, counts: RunCounts, draw: random.Random, *, kills: float, sigterms: float
) -> None:
    """Trials of one experiment until that many kills and stops are counted in all."""
    reference, seconds = campaign.reference()
    expected = outcome(reference)
    [result] = reference.glob(f"*/{RESULT}")
    done = json.loads(result.read_text())["steps"]
    rhythm = Rhythm(campaign.steps, seconds / 3, done // campaign.epochs)
    while counts.kills < kills or counts.sigterms < sigterms:
        runs = campaign.folder / f"trial-{counts.trials}"
        number = signal.SIGKILL if counts.kills < kills else signal.SIGTERM
        interrupted = partial(interrupt, campaign, runs, rhythm, counts, draw, number)
        campaign.disturb(runs, draw, interrupted)
        compare(campaign.name, expected, outcome(runs), counts)
        counts.trials += 1
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
    campaign: RunCampaign,
    runs: Path,
    rhythm: Rhythm,
    counts: RunCounts,
    draw: random.Random,
    number: signal.Signals,
) -> bool:
    """Train, or go on, until a signal at a random moment; False when the run was done before."""
    rhythm.steps[:8] = struct.pack("q", 0)
    victim = campaign.start(runs)
    while not rhythm.step() and not ended(victim):
        time.sleep(0.001)  # loading is over with the first step
    time.sleep(draw.uniform(0, rhythm.longest))
    if ended(victim):
        return False
    began = time.monotonic()
    os.kill(victim, number)
    code = os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1])
    if campaign.done(runs):
        return False
    if number == signal.SIGKILL:
        counts.kills += 1
        counts.kills_mid_epoch += bool(rhythm.step() % rhythm.steps_per_epoch)
    else:
        counts.sigterms += 1
        seconds = time.monotonic() - began
        counts.sigterm_seconds_max = max(counts.sigterm_seconds_max, seconds)
        counts.sigterm_exit_codes.append(code)
    return True


def outcome(runs: Path) -> dict[str, bytes]:
    """Every file that must not differ: all but times, events and locks."""
    return {
        str(path.relative_to(runs)): path.read_bytes()
        for path in sorted(runs.rglob("*"))
        if path.is_file()
        and path.name not in (RESULT, "lock")
        and not path.name.startswith(("events.", "registry."))
    }


def compare(
    campaign: str, expected: dict[str, bytes], found: dict[str, bytes], counts: RunCounts
) -> None:
    """Count the bytes in which a run differs from the uninterrupted one."""
    for name in sorted({*expected, *found}):
        a, b = expected.get(name, b""), found.get(name, b"")
        differing = sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))
        if differing or (name in expected) != (name in found):
            counts.differing_bytes += max(differing, 1)
            counts.differing_files.append(f"{campaign}: {name}")
