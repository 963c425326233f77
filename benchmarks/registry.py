"""The run registry: how fast it answers with many runs, and that writers do not harm each other.

The runs are real folders (config.toml, identity.json, metrics.jsonl, result.json) with made-up
figures; the registry is built from them as `python -m train.runs rebuild` does.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

import train
from train.keys import flatten
from train.runs.layout import CONFIG, IDENTITY, METRICS, RESULT
from train.runs.registry import Registry
from vqa_cache.keys import json_digest

RUNS, EPOCHS = 30_000, 50  # two metrics an epoch
SMALL_RUNS, SMALL_EPOCHS = 60, 4
WRITERS = 4
TIMES = 5  # `ls` is timed so often; the median counts
EXPERIMENT = Path(train.__file__).parent / "experiments" / "cosine_answers.toml"
_HEADS = ("linear", "mlp", "cosine")
_LS = ("ls", "--sort", "metrics.val.accuracy", "--where", "head.name=cosine")


@click.command("registry")
@click.option("--small", is_flag=True, help="A few runs and seconds, to try it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(small: bool, as_json: bool) -> None:
    """`ls` over 30,000 runs and 3 million metric rows; four processes that write for a minute,
    one of them killed."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        runs.mkdir()
        count, epochs = (SMALL_RUNS, SMALL_EPOCHS) if small else (RUNS, EPOCHS)
        figures = measure_ls(runs, count, epochs)
    with tempfile.TemporaryDirectory() as folder:
        figures |= write_together(Path(folder), seconds=2 if small else 60)
    if as_json:
        click.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        click.echo(f"{name}: {value:,.3f}" if isinstance(value, float) else f"{name}: {value:,}")


def measure_ls(runs: Path, count: int, epochs: int) -> dict[str, Any]:
    """Make runs, index them, time `ls` with its start of the interpreter."""
    from train.config import load_experiment

    config = load_experiment("cosine_answers").config.values()
    for number in range(count):
        make_run(runs, config, number, epochs)
    registry = Registry.open(runs)
    started = time.perf_counter()
    registry.rebuild()
    seconds = time.perf_counter() - started
    rows = {
        table: registry.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("runs", "metrics", "run_values")
    }
    registry.close()
    times, listed = [], 0
    for _ in range(TIMES):
        started = time.perf_counter()
        command = [sys.executable, "-m", "train.runs", *_LS, "--runs", str(runs)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - started)
        listed = len(done.stdout.splitlines()) - 1
    return {
        "runs": rows["runs"],
        "metric_rows": rows["metrics"],
        "value_rows": rows["run_values"],
        "rebuild_seconds": seconds,
        "write_rows_per_second": (rows["metrics"] + rows["run_values"]) / seconds,
        "ls_rows": listed,
        "ls_seconds": sorted(times)[len(times) // 2],
        "ls_seconds_max": max(times),
    }


def make_run(runs: Path, config: dict[str, Any], number: int, epochs: int) -> Path:
    """A finished run with seeded figures."""
    from train.config import to_toml

    draw = random.Random(number)
    head = config["head"] | {"name": _HEADS[number % len(_HEADS)]}
    optimizer = config["optimizer"] | {"lr": 10 ** draw.uniform(-5, -2)}
    own = {**config, "seed": number, "head": head, "optimizer": optimizer}
    folder = begin_run(runs, to_toml(own), f"made-{json_digest(flatten(own))[:12]}")
    rows, last = [], {}
    for epoch in range(1, epochs + 1):
        last = {"accuracy": draw.random(), "cross_entropy": draw.expovariate(1)}
        rows.append(json.dumps({"step": epoch * 100, "epoch": epoch, "part": "val", **last}))
    (folder / METRICS).write_text("\n".join(rows) + "\n")
    metrics = {
        split: last | {"accuracy_se": 0.01, "f1_macro": draw.random(), "n": 1000, "n_left_out": 0}
        for split in ("train", "val", "test")
    }
    best = {"epoch": epochs, "metric": "accuracy", "split": "val", "held_out_of_train": False}
    result = {"run_id": folder.name, "experiment": "made", "metrics": metrics, "best": best}
    (folder / RESULT).write_text(json.dumps(result))
    return folder


def begin_run(runs: Path, config: str, name: str) -> Path:
    """The folder of a run that has no figures yet; `config` is TOML."""
    folder = runs / name
    folder.mkdir()
    (folder / CONFIG).write_text(config)
    digests = {"config": json_digest(config), "data": "0" * 32, "code": "0" * 64}
    (folder / IDENTITY).write_text(json.dumps(digests))
    return folder


def write_together(folder: Path, *, seconds: float) -> dict[str, Any]:
    """Four processes train imagined runs into one registry; one is killed half way.

    Returns:
        How many runs, epochs and jobs were written; `lost_rows`, `torn_rows`, `lost_jobs` and
        `writer_errors` ought to be 0. A lost row is a line that the killed writer's files hold
        (after one refresh) or another's, and the registry does not; a torn one differs from its
        line.
    """
    runs = folder / "runs"
    command = [sys.executable, "-m", "benchmarks.registry", str(runs), str(seconds)]
    logs = [folder / f"{number}.log" for number in range(WRITERS)]
    writers = []
    for number, log in enumerate(logs):
        with log.open("w") as errors:
            writers.append(subprocess.Popen([*command, str(number)], stderr=errors))
    while not list(runs.glob("w0-*")):  # from now on it writes for so many seconds
        time.sleep(0.02)
    time.sleep(seconds / 2)
    os.kill(writers[0].pid, signal.SIGKILL)
    codes = [writer.wait() for writer in writers]
    registry = Registry.open(runs)
    before = _indexed(registry)
    registry.refresh()
    expected, indexed = _in_files(runs), _indexed(registry)
    living = {key: row for key, row in expected.items() if not key[0].startswith("w0-")}
    jobs = {row[0] for row in registry.db.execute("SELECT experiment FROM queue")}
    queued = {name for log in logs for name in log.with_suffix(".jobs").read_text().split()}
    check = registry.db.execute("PRAGMA integrity_check").fetchone()[0]
    registry.close()
    return {
        "writers": WRITERS,
        "killed": sum(code == -signal.SIGKILL for code in codes),
        "writer_errors": sum(code not in (0, -signal.SIGKILL) for code in codes)
        + sum(bool(log.read_text()) for log in logs),
        "damaged": int(check != "ok"),
        "runs_written": len({key[0] for key in expected}),
        "rows_written": len(expected),
        "jobs_written": len(queued),
        "lost_rows": len(living.keys() - before.keys()) + len(expected.keys() - indexed.keys()),
        "torn_rows": sum(expected.get(key) != row for key, row in (before | indexed).items()),
        "lost_jobs": len(queued - jobs),
    }


def _in_files(runs: Path) -> dict[tuple[str, int, str], float]:
    found = {}
    for path in runs.glob(f"*/{METRICS}"):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                row = json.loads(line)
                for name in ("accuracy", "cross_entropy"):
                    found[path.parent.name, row["step"], name] = row[name]
    return found


def _indexed(registry: Registry) -> dict[tuple[str, int, str], float]:
    query = "SELECT r.run, step, name, value FROM metrics JOIN runs r ON r.id = metrics.run"
    return {(run, step, name): value for run, step, name, value in registry.db.execute(query)}


def write_runs(runs: Path, seconds: float, writer: int) -> None:
    """What one of the writers does: runs of twenty epochs, indexed after each, and a job each."""
    from train.runs.queue import Queue

    config = EXPERIMENT.read_text()
    registry = Registry.open(runs)
    queue = Queue(registry)
    draw = random.Random(writer)
    jobs = runs.parent / f"{writer}.jobs"
    jobs.touch()
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        folder = begin_run(runs, f"seed = {number}\n{config}", f"w{writer}-{number:012x}")
        registry.index_run(folder)
        with (folder / METRICS).open("w") as log:
            for epoch in range(1, 21):
                row = {"step": epoch * 100, "epoch": epoch, "part": "val"}
                row |= {"accuracy": draw.random(), "cross_entropy": draw.random()}
                log.write(json.dumps(row) + "\n")
                log.flush()
                registry.index_run(folder)
        (folder / RESULT).write_text(json.dumps({"metrics": {"val": {"accuracy": draw.random()}}}))
        registry.index_run(folder)
        queue.add(folder.name, [], cache=runs, folder=runs)
        with jobs.open("a") as file:  # after the queue has it
            file.write(f"{folder.name}\n")
        number += 1
    registry.close()


if __name__ == "__main__":
    write_runs(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
