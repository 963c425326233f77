"""Exact resume: kill and stop trainings and sweeps at random moments, go on, compare every byte.

A kill counts only before the work's result is there. Each work is done undisturbed first; then
again and again with a few interruptions each, until so many are counted. Ends with exit code 1
where anything differs.

\b
kills, kills_mid_epoch       kill -9s of trainings, and how many fell between two epochs' ends
sigterms                     stops of trainings by SIGTERM
sigterm_seconds_max          the longest time from a signal to the exit
sigterm_exit_codes           143 alone
trials                       trainings that were interrupted
differing_bytes, differing_files
                             checkpoints, logs and predictions against the undisturbed ones: none
sweep_kills, sweeps          kill -9s of sweeps, and how many sweeps were interrupted
trials_lost, trials_doubled  trials of a sweep's record that are missing or there twice: none
sweep_differing              trials and winners that differ from the undisturbed sweep's: none
"""

from __future__ import annotations

import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import click

from benchmarks.inputs.caches import make_shapes, run_stage_1
from benchmarks.measuring.report import Report, json_option, reported
from benchmarks.resume.runs import RunCampaign, RunCounts, disturb_runs
from benchmarks.resume.sweeps import SWEEPS, SweepCounts, disturb_sweeps, sweep_campaign
from vqa_cache.system.commands import Command
from vqa_cache.system.signals import EXIT_STOPPED

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


@click.command("resume", cls=Command, help=__doc__)
@click.option("--kills", default=210, show_default=True, help="Of trainings, at least.")
@click.option("--sigterms", default=21, show_default=True, help="Of trainings, at least.")
@click.option("--sweep-kills", default=50, show_default=True, help="Of sweeps, at least.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
@json_option
def command(kills: int, sigterms: int, sweep_kills: int, seed: int, as_json: bool) -> None:
    draw = random.Random(seed)
    with reported(as_json=as_json) as report, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report.begin("shapes are drawn and encoded")
        shapes = make_shapes(folder / "shapes", images=120, questions=2400)
        cache = run_stage_1(folder / "cache", "shapes", IMAGE, "--root", str(shapes))
        runs = measure_runs(report, cache, folder, draw, kills=kills, sigterms=sigterms)
        sweeps = measure_sweeps(report, cache, folder, draw, kills=sweep_kills)
    wrong_exits = set(runs.sigterm_exit_codes) - {EXIT_STOPPED}
    if runs.differing_bytes or wrong_exits or not sweeps.same:
        sys.exit(1)


def measure_runs(
    report: Report, cache: Path, folder: Path, draw: random.Random, *, kills: int, sigterms: int
) -> RunCounts:
    """Disturb trainings of every setting, as often each; what was found."""
    counts = RunCounts()
    for number, (experiment, *overrides) in enumerate(SETTINGS, start=1):
        report.begin(f"{experiment} is trained, killed and stopped ({number} of {len(SETTINGS)})")
        own = folder / experiment
        own.mkdir()
        campaign = RunCampaign(experiment, cache, own, (*SHORT, *overrides), EPOCHS)
        share = number / len(SETTINGS)
        disturb_runs(campaign, counts, draw, kills=kills * share, sigterms=sigterms * share)
        report.figures |= {
            **asdict(counts),
            "sigterm_seconds_max": round(counts.sigterm_seconds_max, 3),
            "sigterm_exit_codes": sorted(set(counts.sigterm_exit_codes)),
            "seconds": round(report.seconds, 1),
        }
    return counts


def measure_sweeps(
    report: Report, cache: Path, folder: Path, draw: random.Random, *, kills: int
) -> SweepCounts:
    """Disturb sweeps of every kind, as often each; what was found."""
    counts, began = SweepCounts(), report.seconds
    for number, name in enumerate(SWEEPS, start=1):
        report.begin(f"a sweep by {name} is run and killed ({number} of {len(SWEEPS)})")
        own = folder / f"sweep-{name}"
        own.mkdir()
        campaign = sweep_campaign(name, FEATURES, cache, own)
        disturb_sweeps(campaign, counts, draw, kills=kills * number / len(SWEEPS))
        report.figures |= {
            **asdict(counts),
            "sweep_seconds": round(report.seconds - began, 1),
        }
    return counts
