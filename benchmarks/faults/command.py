"""Faults: stage 1 and its caches are killed, starved, damaged and written by several at once, and
have to end as if nothing had happened.

A seeded schedule over real processes on generated pictures; after each fault the same command is
given again. Kinds of work: plain (HDF5), Zarr, ragged, extend, repair, retry, withdraw, copy,
convert, import, and Ray. Ends with exit code 1 where anything was found.

\b
kills, ray_kills             SIGKILLs that fell before the last commit, of them those on Ray
rows_lost, rows_wrong        rows that a reader misses or is given wrongly after any fault: 0 each
final_bytes_equal            whether every file ends as that of an undisturbed run, no more is left
                             and verify reports nothing
operation_kills_min          kills of that operation on files that was hit least
power_loss_states, power_loss_bad
                             distinct states of the disk after a loss of power, and bad ones: 0
failures, failures_bad       full, read-only and failing disks, no memory, no file handles: bad are
                             more than one line, or another end: 0
source_changes, source_changes_bad
                             datasets that changed between two runs: 0 bad
corruptions_tried, corruptions_missed
                             damages of every kind of file, and those that verify misses: 0
corruptions_trained_on, corruptions_exported
                             of them in figures (loads auto, map and read by turns) or exports: 0
corruptions_told_badly       errors that were no line: 0
repairs, repairs_failed      damages that `--repair` and `gc` do not mend: 0
writer_rounds, writer_faults
                             rounds of 2 to 4 writers, half of them with one killed; lost, doubled
                             or wrong rows, errors of writers or of readers: 0
writer_rounds_in_namespaces  of them where each writer has process numbers of its own
durable_overhead             time with syncs over without: ResNet-18, 50 shards of 64 rows
checked_load_overhead        time of reading a table with every block checked, over without
findings                     what was found, one line each, the first of each kind and work
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from benchmarks.faults import (
    corruption,
    failures,
    kills,
    overhead,
    power_loss,
    ray_kills,
    sources,
    writers,
)
from benchmarks.faults.ground import Ground, prepared
from benchmarks.faults.scenario import Finding, Scenario
from benchmarks.inputs.pictures import RESNET
from benchmarks.inputs.sizes import VQA2, Sizes
from benchmarks.measuring import namespaces, ray_driver
from benchmarks.measuring.devices import hide_gpus
from benchmarks.measuring.report import Figures, Report, json_option, reported
from precompute.torchvision_operators import declare_missing_operators
from vqa_cache.system.commands import Command

Case = TypeVar("Case")
Result = TypeVar("Result")
_TINY = Sizes({"train": 300, "val": 60}, {"train": 4000, "val": 500}, 400, 50, 6, 10)
_LINES = 30  # of findings
_ROUNDS = 6  # of kills, until every operation was hit often enough


@dataclass(frozen=True)
class Counts:
    """How much of each is tried."""

    kills: int = 720
    ray_kills: int = 50
    power_losses: int = 3_200
    failures: int = 120
    source_changes: int = 30
    corruptions: int = 1_260
    writer_rounds: int = 64
    namespaces: int = 24
    rounds: int = 2

    def share(self, share: float) -> Counts:
        """A part of it, one of each at least."""
        return Counts(**{name: max(1, round(n * share)) for name, n in vars(self).items()})


@dataclass
class Campaign:
    """A run of all parts.

    Attributes:
        cores: so many victims at once.
        share: of `Counts`.
    """

    report: Report
    ground: Ground
    counts: Counts
    seed: int
    cores: int
    findings: list[Finding]

    def draw(self, part: str) -> random.Random:
        """Each part draws for itself, so that it is the same with and without the others."""
        return random.Random(f"{self.seed} {part}")

    def each(self, work: Callable[[Case], Result], cases: Iterable[Case]) -> list[Result]:
        """Work on every case, several at once."""
        with ThreadPoolExecutor(self.cores) as pool:
            running = [pool.submit(work, case) for case in cases]
            try:
                return [one.result() for one in running]
            except BaseException:  # a signal, say: what has not begun does not begin
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def found(self, findings: Iterable[Finding]) -> int:
        """Take findings in; their number."""
        new = list(findings)
        self.findings += new
        count = _counted(self.findings)
        known: dict[tuple[str, str], str] = {}
        for one in self.findings:
            known.setdefault((one.kind, one.what.partition(",")[0]), f"{one.kind}: {one.what}")
        self.report.figures |= {
            "rows_lost": count("rows_lost"),
            "rows_wrong": count("rows_wrong"),
            "final_bytes_equal": not any(
                count(kind) for kind in ("bytes_differ", "not_done", "unclean")
            ),
            "findings": list(known.values())[:_LINES],
        }
        return len(new)


def _counted(findings: list[Finding]) -> Callable[[str], int]:
    return lambda kind: sum(one.count for one in findings if one.kind == kind)


def try_kills(campaign: Campaign, scenarios: list[Scenario]) -> Figures:
    """SIGKILLs at every operation and at random moments."""
    draw, done = campaign.draw("kills"), list[kills.Killed]()
    planned = kills.schedule(scenarios, campaign.counts.kills, draw)
    for _ in range(_ROUNDS):
        done += campaign.each(lambda one: kills.kill(campaign.ground, one), planned)
        if not (planned := kills.hit_too_seldom(scenarios, done, draw)):
            break
    campaign.found(finding for one in done for finding in one.findings)
    hit = kills.operation_counts(done)
    return {
        "kills": sum(one.counted for one in done),
        "operation_kills_min": min(hit.values(), default=0),
        "operation_kinds": len(hit),
    }


def try_power(campaign: Campaign, scenarios: list[Scenario]) -> Figures:
    """Losses of power at every call."""
    draw, bad, states = campaign.draw("power"), 0, 0
    total = sum(len(one.operations) for one in scenarios)
    for scenario in scenarios:
        share = len(scenario.operations) / total
        wanted = max(1, round(campaign.counts.power_losses * share))
        found = power_loss.losses(campaign.ground, scenario, wanted, draw)
        states += len(found)
        done = campaign.each(lambda one: power_loss.check(campaign.ground, one), found)
        bad += sum(bool(one) for one in done)
        campaign.found(finding for one in done for finding in one)
    return {"power_loss_states": states, "power_loss_bad": bad}


def try_failures(campaign: Campaign, scenarios: list[Scenario]) -> Figures:
    """What a machine refuses."""
    planned = failures.schedule(scenarios, campaign.counts.failures, campaign.draw("failures"))
    done = campaign.each(lambda one: failures.fail(campaign.ground, one), planned)
    campaign.found(finding for one in done for finding in one)
    return {"failures": len(done), "failures_bad": sum(bool(one) for one in done)}


def try_sources(campaign: Campaign, _scenarios: list[Scenario]) -> Figures:
    """Datasets that change."""
    planned = sources.schedule(campaign.counts.source_changes, campaign.draw("sources"))
    done = campaign.each(lambda one: sources.change(campaign.ground, one), planned)
    campaign.found(finding for one in done for finding in one)
    return {"source_changes": len(done), "source_changes_bad": sum(bool(one) for one in done)}


def try_corruption(campaign: Campaign, _scenarios: list[Scenario]) -> Figures:
    """Damages of every kind of file."""
    patient = corruption.Patient(campaign.ground)
    planned = patient.damages(campaign.counts.corruptions, campaign.draw("corruption"))
    done = campaign.each(lambda one: patient.suffer(*one), enumerate(planned))
    campaign.found(finding for one in done for finding in one.findings)

    def damages(kind: str) -> int:
        return sum(any(one.kind == kind for one in each.findings) for each in done)

    return {
        "corruptions_tried": sum(one.tried for one in done),
        "corruptions_missed": damages("missed"),
        "corruptions_trained_on": damages("trained_on"),
        "corruptions_trained": sum(one.trained for one in done),
        "corruptions_exported": damages("exported"),
        "corruptions_told_badly": damages("told_badly"),
        "repairs": sum(one.mended for one in done),
        "repairs_failed": damages("not_mended"),
    }


def try_writers(campaign: Campaign, scenarios: list[Scenario]) -> Figures:
    """Several writers at once."""
    refused = namespaces.why_not()
    own = 0 if refused else campaign.counts.namespaces
    draw = campaign.draw("writers")
    planned = writers.schedule(scenarios, campaign.counts.writer_rounds, draw, namespaces=own)
    done = [writers.write_together(campaign.ground, one) for one in planned]  # each is several
    campaign.found(finding for one in done for finding in one.findings)
    figures: Figures = {
        "writer_rounds": len(done),
        "writer_rounds_in_namespaces": own,
        "writer_faults": sum(bool(one.findings) for one in done),
        "reads_meanwhile": sum(one.reads for one in done),
    }
    return figures | ({"namespaces_refused": refused} if refused else {})


def try_ray(campaign: Campaign, _scenarios: list[Scenario]) -> Figures:
    """Kills of Ray's processes."""
    if (reason := ray_driver.why_not()) is not None:
        return {"ray_kills": None, "ray_refused": reason}
    scenario, draw, count = ray_kills.prepared(campaign.ground), campaign.draw("ray"), 0
    while count < campaign.counts.ray_kills:
        done = ray_kills.kill(campaign.ground, scenario, campaign.counts.ray_kills - count, draw)
        campaign.found(done.findings)
        count += done.kills
    known = campaign.report.figures.get("kills", 0)
    return {"ray_kills": count, "kills": known + count}


def measure_overheads(campaign: Campaign, _scenarios: list[Scenario]) -> Figures:
    """What the care costs."""
    folder, rounds = campaign.ground.folder / "overhead", campaign.counts.rounds
    folder.mkdir()
    full = campaign.counts.rounds >= Counts.rounds
    spec, shards, rows = (
        (overhead.RESNET_18, overhead.SHARDS, overhead.ROWS) if full else (RESNET, 4, 4)
    )
    checked = overhead.checked_load_overhead(folder, VQA2 if full else _TINY, rounds=rounds)
    return {
        "durable_overhead": overhead.durable_overhead(
            folder, spec=spec, shards=shards, rows=rows, rounds=rounds
        ),
        "checked_load_overhead": checked,
    }


PARTS: dict[str, tuple[Callable[[Campaign, list[Scenario]], Figures], str]] = {
    "kills": (try_kills, "processes are killed"),
    "ray": (try_ray, "processes of Ray are killed"),
    "power": (try_power, "the power goes"),
    "failures": (try_failures, "disks, memory and file handles fail"),
    "sources": (try_sources, "the dataset changes"),
    "corruption": (try_corruption, "files are damaged"),
    "writers": (try_writers, "several write at once"),
    "overheads": (measure_overheads, "what the care costs is measured"),
}


@click.command("faults", cls=Command, help=__doc__)
@click.option("--only", multiple=True, type=click.Choice(list(PARTS)), help="May repeat.")
@click.option("--share", default=1.0, show_default=True, help="Of the faults that are tried.")
@click.option("--seed", default=0, show_default=True, help="Of the schedule.")
@json_option
def command(only: tuple[str, ...], share: float, seed: int, as_json: bool) -> None:
    hide_gpus()
    declare_missing_operators()
    with reported(as_json=as_json) as report, tempfile.TemporaryDirectory() as name:
        report.begin("a dataset is drawn and encoded")
        with prepared(Path(name)) as ground:
            counts = Counts() if share == 1 else Counts().share(share)
            found: list[Finding] = []
            campaign = Campaign(report, ground, counts, seed, os.cpu_count() or 1, found)
            run_parts(campaign, only or tuple(PARTS))
    if found:
        sys.exit(1)


def run_parts(campaign: Campaign, parts: Iterable[str]) -> None:
    """Run some parts, adding to the figures."""
    scenarios = campaign.ground.scenarios()
    campaign.found([])
    for name in parts:
        run, what = PARTS[name]
        campaign.report.begin(what)
        began = campaign.report.seconds
        figures: dict[str, Any] = run(campaign, scenarios)
        seconds = round(campaign.report.seconds - began, 1)
        campaign.report.figures |= {**figures, f"{name}_seconds": seconds}
