"""A sweep against a fresh process for each of its trials.

32 trials of 3 epochs of a head 512 -> 64 -> 13 on easy-VQA, baselines off. The peer is `python -m
train` once a trial with the same settings: one process after another with all cores, or two at a
time with one core each, whichever is faster. All import first what they will need and say when that
is done, so that imports are taken off both sides and reported apart.

\b
sweep_vs_process_per_trial   seconds of all processes over seconds of the sweep, without imports
sweep_seconds, processes_seconds
                             both sides of it; `processes_at_a_time` says which way was faster
import_seconds               of both sides
winners_seconds              training the sweep's winner again, which no side counts
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.inputs.caches import run_stage_1
from benchmarks.measuring.processes import how_it_ended
from benchmarks.measuring.report import Report, json_option, reported
from vqa_cache.system.commands import Command

IMAGE = "timm:resnet18:random=0:tap=layer2"
FIXED = ("mlp_answers", f"features.image={IMAGE}", "head.hidden=[64]", "train.epochs=3")
RATES = ("1e-4", "3e-4", "1e-3", "2e-3", "3e-3", "1e-2", "3e-2", "1e-1")
DECAYS = ("0.01", "0.1", "1.0", "2.0")
# what is imported late; everything else comes with these
LIBRARIES = {
    "train": (
        "rich.console",
        "train.evaluation.result",
        "train.trainer",
        "torch.utils.tensorboard",
    ),
    "train.sweep": (
        "rich.console",
        "train.sweep.report",
        "train.sweep.run",
        "optuna.importance",  # loads scikit-learn
    ),
}
START = """
import importlib, runpy, sys, time
for name in sys.argv[2].split(","):
    importlib.import_module(name)
print(time.monotonic(), flush=True)
module, sys.argv = sys.argv[1], [sys.argv[1], *sys.argv[3:]]
runpy.run_module(module, run_name="__main__")
"""


@dataclass(frozen=True)
class Spent:
    """Seconds of a process: its imports, and everything after them."""

    imports: float
    rest: float
    said: str = ""


@click.command("sweep", cls=Command, help=__doc__)
@click.option("--cache", type=click.Path(path_type=Path), help="Otherwise one is written first.")
@click.option("--rounds", default=4, show_default=True, help="The peer's trials are spread over.")
@json_option
def command(cache: Path | None, rounds: int, as_json: bool) -> None:
    with reported(as_json=as_json) as report, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if cache is None:
            report.begin("stage 1 writes a cache")
            cache = run_stage_1(folder / "cache", "easy_vqa", IMAGE)
        measure(report, cache, folder, rounds)


def measure(report: Report, cache: Path, folder: Path, rounds: int) -> None:
    """Each round runs the whole sweep and a share of the trials alone and in pairs."""
    trials = list(itertools.product(RATES, DECAYS))
    sweeps: list[Spent] = []
    alone: list[Spent] = []
    pairs: list[Spent] = []
    for number in range(rounds):
        own = trials[number::rounds]
        report.begin(
            f"round {number + 1} of {rounds}: the sweep, then {len(own)} trials alone and in pairs"
        )
        runs = folder / str(number)
        sweeps.append(run_sweep(cache, runs))
        alone += (run_trial(cache, runs / "alone", trial) for trial in own)
        pairs.append(run_pairs(cache, runs / "pairs", own))
    report.begin("the sweep's winner is trained again")
    winners = run_sweep(cache, runs, winners=1)  # the trials are there already
    sweep = statistics.median(spent.rest for spent in sweeps)
    peers = {1: added(alone), 2: added(pairs)}
    best = min(peers, key=lambda count: peers[count].rest)
    report.figures |= {
        "sweep_vs_process_per_trial": round(peers[best].rest / sweep, 2),
        "trials": len(trials),
        "sweep_seconds": round(sweep, 2),
        "processes_seconds": round(peers[best].rest, 2),
        "processes_at_a_time": best,
        "processes_seconds_one_at_a_time": round(peers[1].rest, 2),
        "processes_seconds_two_at_a_time": round(peers[2].rest, 2),
        "import_seconds": {
            "sweep": round(statistics.median(spent.imports for spent in sweeps), 2),
            "processes": round(peers[best].imports, 2),
        },
        "winners_seconds": round(winners.rest, 2),
        "best_accuracy": max(row["value"] or 0 for row in json.loads(winners.said)["trials"]),
    }


def run_sweep(cache: Path, runs: Path, *, winners: int = 0) -> Spent:
    """All trials in one process; the sweep's JSON is what it said."""
    varied = (f"optimizer.lr={','.join(RATES)}", f"optimizer.weight_decay={','.join(DECAYS)}")
    return run("train.sweep", cache, runs, *varied, "--winners", str(winners), "--json")


def run_trial(cache: Path, runs: Path, trial: Sequence[str], threads: int | None = None) -> Spent:
    """One trial in a process of its own."""
    rate, decay = trial
    chosen = (f"optimizer.lr={rate}", f"optimizer.weight_decay={decay}", "baselines=off")
    return run("train", cache, runs, *chosen, threads=threads)


def run_pairs(cache: Path, runs: Path, trials: Sequence[Sequence[str]]) -> Spent:
    """Trials in processes of one thread, two at a time; half of all imports is taken off."""
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        spent = list(pool.map(lambda trial: run_trial(cache, runs, trial, threads=1), trials))
    imports = added(spent).imports / 2
    return Spent(imports, time.monotonic() - began - imports)


def added(spent: Iterable[Spent]) -> Spent:
    """The seconds of processes that ran one after another."""
    found = list(spent)
    return Spent(sum(one.imports for one in found), sum(one.rest for one in found))


def run(module: str, cache: Path, runs: Path, *words: str, threads: int | None = None) -> Spent:
    """`python -m MODULE` on the benchmark's experiment, imports first."""
    line = [sys.executable, "-c", START, module, ",".join(LIBRARIES[module]), *FIXED, *words]
    limit = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    began = time.monotonic()
    done = subprocess.run(
        [*line, "--cache", str(cache), "--runs", str(runs)],
        env={**os.environ, **limit},
        capture_output=True,
        text=True,
    )
    ended = time.monotonic()
    if done.returncode:
        raise click.ClickException(
            f"python -m {module} {how_it_ended(done.returncode)}: {done.stderr.strip()}"
        )
    imported, _, said = done.stdout.partition("\n")
    return Spent(float(imported) - began, ended - float(imported), said)
