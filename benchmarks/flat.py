"""Training from a table that is larger than what may be held: what it costs, and what its shuffle
in windows costs in accuracy.

The large table has 5 million examples, each with a question row of its own (7.7 GB), sorted by
answer. Epochs over it and over a resident table of 100,000 examples take turns in two processes.

\b
flat_cost                    time per sample with the large table, its pages dropped from memory
                             before each epoch, against the resident one: median of the rounds
flat_anonymous_gb            the most memory that no file stands behind, of the process that trains
                             over the large table
flat_accuracy_difference     accuracy after a shuffle in windows minus that after a full shuffle of
                             the same sorted data: the mean over seeds, of a smaller table whose
                             windows are the same share; `_se` is its standard error
flat_microseconds, flat_resident_microseconds
                             per sample, of both sides of `flat_cost`
flat_read_gb, flat_table_gb  read from disk in an epoch, and how large the table is
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import IO, Any

import click
import torch
from rich.console import Console

import vqa_cache
from benchmarks.inputs.flat_cache import DATASET, VQA2_FLAT, FlatSizes, make_flat_cache
from benchmarks.inputs.scale_cache import FEATURES as SCALE_FEATURES
from benchmarks.inputs.scale_cache import WIDTH
from benchmarks.measuring.memory import PeakMemory
from benchmarks.measuring.processes import how_it_ended, started
from benchmarks.measuring.report import Report, json_option, reported
from benchmarks.measuring.trainings import begin_training
from train.config.files import load_experiment
from train.engine.data import load_data
from train.inputs.large.blocks import BLOCK_SIZES, BlockSizes
from train.inputs.load import TrainingData
from train.loop.fit import fit
from train.loop.training_loop import Watch
from vqa_cache.system.allocator import keep_freed_memory
from vqa_cache.system.commands import Command
from vqa_cache.system.device import CPU

FEATURES = (*SCALE_FEATURES, f"features.dataset={DATASET}", "train.snapshot_every=0")
BATCH_SIZE = 5000
RESIDENT_EXAMPLES = 100_000
RESIDENT_EPOCHS = 5  # of a turn
SMALL = FlatSizes(train=60_000, val=30_000, images=1_000, answers=100)
SMALL_BATCH_SIZE = 60  # SMALL's share of BATCH_SIZE
SMALL_EPOCHS = 5


@click.command("flat", cls=Command, help=__doc__)
@click.option("--cache", type=click.Path(path_type=Path), help="Keep the large cache here.")
@click.option("--rounds", default=3, show_default=True, help="Epochs over the large table.")
@click.option("--seeds", default=5, show_default=True, help="Pairs of trainings compared.")
@click.option("--examples", default=VQA2_FLAT.train, show_default=True, help="Of the large table.")
@json_option
def command(cache: Path | None, rounds: int, seeds: int, examples: int, as_json: bool) -> None:
    with reported(as_json=as_json) as report, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure(report, folder, cache=cache, rounds=rounds, seeds=seeds, examples=examples)


def measure(
    report: Report,
    folder: Path,
    *,
    cache: Path | None,
    rounds: int,
    seeds: int = 5,
    examples: int | None = None,
) -> None:
    """All figures, as the options of `command` have it; temporary files go into `folder`."""
    examples = examples or VQA2_FLAT.train
    sizes = FlatSizes(examples, VQA2_FLAT.val, VQA2_FLAT.images, VQA2_FLAT.answers)
    large = cache or folder / "large"
    if not large.exists():
        report.begin(f"a cache of {examples:,} questions is written")
        make_flat_cache(large, sizes)
    report.begin(f"epochs over {examples:,} questions and over resident ones, {rounds} rounds")
    report.figures |= cost(large, sizes, folder, rounds)
    report.begin(f"accuracy after both shuffles, {seeds} seeds")
    report.figures |= accuracy_difference(folder, SMALL, seeds)


# ---------------------------------------------------------------- time and memory


def cost(large: Path, sizes: FlatSizes, folder: Path, rounds: int) -> dict[str, Any]:
    """Epochs over the large table, its pages dropped before each, and epochs over a resident one,
    take turns in two processes."""
    few = folder / "resident"
    make_flat_cache(few, FlatSizes(RESIDENT_EXAMPLES, 1_000, sizes.images, sizes.answers))
    found: dict[str, list[dict[str, float]]] = {"map": [], "read": []}
    with ExitStack() as stack:
        turns = {
            "map": stack.enter_context(_trainer(large, folder / "map", "map", 1)),
            "read": stack.enter_context(_trainer(few, folder / "read", "read", RESIDENT_EPOCHS)),
        }
        for _ in range(rounds):
            for load, process in turns.items():
                found[load].append(_turn(process))
    pairs = zip(found["map"], found["read"], strict=True)
    last = found["map"][-1]
    return {
        "flat_cost": round(statistics.median(a["seconds"] / b["seconds"] for a, b in pairs), 3),
        "flat_anonymous_gb": last["anonymous_gb"],
        "flat_microseconds": _median(found["map"], "seconds", 1e6),
        "flat_resident_microseconds": _median(found["read"], "seconds", 1e6),
        "flat_read_gb": _median(found["map"], "read_gb"),
        "flat_table_gb": round(sizes.table_bytes / 1e9, 2),
        "flat_windows": last["windows"],
    }


def _median(turns: list[dict[str, float]], key: str, unit: float = 1.0) -> float:
    return round(statistics.median(turn[key] for turn in turns) * unit, 2)


def _trainer(
    cache: Path, folder: Path, load: str, epochs: int
) -> AbstractContextManager[subprocess.Popen[str]]:
    """A process that trains some epochs each time that it is told a line."""
    code = (
        f"from benchmarks.flat import serve; serve({[str(cache), str(folder), load]!r}, {epochs})"
    )
    return started("-c", code, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _turn(process: subprocess.Popen[str]) -> dict[str, float]:
    told, answer = process.stdin, process.stdout
    assert told is not None
    assert answer is not None
    told.write("go\n")
    told.flush()
    line = answer.readline()
    if not line:
        raise click.ClickException(f"a training process {how_it_ended(process.wait())}")
    turn: dict[str, float] = json.loads(line)
    return turn


def serve(arguments: list[str], epochs: int, lines: IO[str] = sys.stdin) -> None:
    """Train `epochs` epochs for every line that comes in and say how it went, as JSON: seconds a
    sample, GB read from disk, the largest anonymous memory of the process so far."""
    cache, folder, load = arguments
    keep_freed_memory()
    memory = PeakMemory()
    overrides = [*FEATURES, f"load={load}", f"train.batch_size={BATCH_SIZE}"]
    experiment = load_experiment("linear_answers", overrides)
    data = load_data(experiment, vqa_cache.open(Path(cache)), device=CPU)
    training = begin_training(experiment.config, data, Path(folder))
    training.train_step()
    for _ in lines:
        drop_pages(Path(cache))
        training.step = 0
        before, began = _bytes_read(), time.perf_counter()
        for _ in range(epochs * training.per_epoch):
            training.train_step()
        seconds = time.perf_counter() - began
        turn = {
            "seconds": seconds / (epochs * len(training.trainable)),
            "read_gb": (_bytes_read() - before) / 1e9,
            "anonymous_gb": round(memory.peak / 1e9, 3),
            "windows": windows_of(data),
        }
        print(json.dumps(turn), flush=True)
    training.log.close()


def windows_of(data: TrainingData) -> int:
    """In how many windows an epoch is shuffled; 0 = not in windows."""
    blocks = data.tables["text"].blocks
    return 0 if blocks is None else blocks.windows


def drop_pages(cache: Path) -> None:
    """Forget what the system holds of a cache's shards in memory."""
    for path in cache.glob("tables/**/shards/*"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _bytes_read() -> int:
    """By this process, from disk."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("read_bytes:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/io has no read_bytes")


# ---------------------------------------------------------------- accuracy


def accuracy_difference(folder: Path, sizes: FlatSizes, seeds: int) -> dict[str, float]:
    """Accuracy after a shuffle in windows minus that after a full one, on data sorted by answer."""
    cache = make_flat_cache(folder / "small", sizes)
    orders = dict(zip(("windows", "full"), shuffles(sizes), strict=True))
    accuracy: dict[str, list[float]] = {name: [] for name in orders}
    for seed in range(seeds):
        overrides = [
            *FEATURES,
            f"data_seed={seed}",
            f"train.batch_size={SMALL_BATCH_SIZE}",
            f"train.epochs={SMALL_EPOCHS}",
            "train.precision=fp32",
        ]
        experiment = load_experiment("linear_answers", overrides)
        for name, shuffle in orders.items():
            data = load_data(experiment, cache, device=CPU, sizes=shuffle)
            fitted = fit(
                experiment.config,
                data,
                modalities=data.tables,
                what="",
                folder=folder / f"{name}-{seed}",
                watch=Watch(Console(quiet=True)),
            )
            accuracy[name].append(fitted.score.accuracy)
    differences = torch.tensor(accuracy["windows"]) - torch.tensor(accuracy["full"])
    error = differences.std() / len(differences) ** 0.5 if seeds > 1 else torch.tensor(torch.nan)
    return {
        "flat_accuracy_difference": round(float(differences.mean()), 5),
        "flat_accuracy_difference_se": round(float(error), 5),
        "flat_accuracy_full": round(statistics.mean(accuracy["full"]), 4),
    }


def shuffles(sizes: FlatSizes) -> tuple[BlockSizes, BlockSizes]:
    """Windows that are the same share of a small table as they are of the large one, with blocks
    that are the same share of an answer's rows; and sizes for which no table is large."""
    row = WIDTH * 2
    share = sizes.train / VQA2_FLAT.train
    per_answer = sizes.train / sizes.answers / (VQA2_FLAT.train / VQA2_FLAT.answers)
    block = max(1, round(per_answer * (BLOCK_SIZES.block // row))) * row
    window = max(block, round(share * BLOCK_SIZES.window))
    return BlockSizes(large=0, window=window, block=block), BlockSizes(large=2**62)
