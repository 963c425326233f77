"""The run registry: how fast it answers with many runs, and that writers do not harm each other.

30,000 runs with 3 million metric rows are real folders (config.toml, identity.json, metrics.jsonl,
result.json) with made-up figures; the registry is built from them as `python -m train.runs rebuild`
does. Then four processes write runs and jobs into one registry for a minute; one is killed half
way.

\b
ls_seconds, ls_seconds_max   `train.runs ls` sorted and filtered, with the start of its interpreter:
                             median and worst of five
rebuild_seconds, write_rows_per_second
                             building the registry from the folders
killed                       of the four writers: 1
lost_rows, torn_rows, lost_jobs, damaged, writer_errors
                             what the writers and the kill harmed: 0 each
"""

from __future__ import annotations

import json
import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from benchmarks.inputs.made_runs import begin_run, make_run
from benchmarks.measuring.processes import how_it_ended, run_python, started
from benchmarks.measuring.report import json_option, reported
from train.config.files import load_experiment
from train.loop.layout import METRICS, RESULT
from train.runs.queue import Queue
from train.runs.registry import Registry
from vqa_cache.experiments import experiment_files
from vqa_cache.system.commands import Command

RUNS, EPOCHS = 30_000, 50  # two metrics an epoch
SECONDS = 60  # of writing together
SMALL_RUNS, SMALL_EPOCHS, SMALL_SECONDS = 60, 4, 2
WRITERS = 4
TIMES = 5  # `ls` is timed so often; the median counts
EXPERIMENT = experiment_files()["cosine_answers"]
_LS = ("ls", "--sort", "metrics.val.accuracy", "--where", "head.name=cosine")


@click.command("registry", cls=Command, help=__doc__)
@click.option("--small", is_flag=True, help="A few runs and seconds, to try it.")
@json_option
def command(small: bool, as_json: bool) -> None:
    count, epochs = (SMALL_RUNS, SMALL_EPOCHS) if small else (RUNS, EPOCHS)
    seconds = SMALL_SECONDS if small else SECONDS
    with reported(as_json=as_json) as report, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report.begin(f"{count:,} runs of {epochs} epochs are made, indexed and listed")
        report.figures |= measure_ls(folder / "runs", count, epochs)
        report.begin(f"{WRITERS} processes write for {seconds} s, one is killed")
        report.figures |= write_together(folder / "together", seconds=seconds)


def measure_ls(runs: Path, count: int, epochs: int) -> dict[str, Any]:
    """Make runs, index them, time `ls` with its start of the interpreter."""
    runs.mkdir()
    config = load_experiment("cosine_answers").config.values()
    for number in range(count):
        make_run(runs, config, number, epochs)
    registry = Registry.open(runs)
    began = time.perf_counter()
    registry.rebuild()
    seconds = time.perf_counter() - began
    rows = {
        table: registry.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("runs", "metrics", "run_values")
    }
    registry.close()
    times, listed = [], 0
    for _ in range(TIMES):
        began = time.perf_counter()
        lines = run_python("-m", "train.runs", *_LS, "--runs", str(runs)).splitlines()
        times.append(time.perf_counter() - began)
        listed = len(lines) - 1
    return {
        "runs": rows["runs"],
        "metric_rows": rows["metrics"],
        "value_rows": rows["run_values"],
        "rebuild_seconds": round(seconds, 3),
        "write_rows_per_second": round((rows["metrics"] + rows["run_values"]) / seconds, 3),
        "ls_rows": listed,
        "ls_seconds": round(sorted(times)[len(times) // 2], 3),
        "ls_seconds_max": round(max(times), 3),
    }


def write_together(folder: Path, *, seconds: float) -> dict[str, Any]:
    """Four processes train imagined runs into one registry; one is killed half way.

    Returns:
        How many runs, epochs and jobs were written; `lost_rows`, `torn_rows`, `lost_jobs` and
        `writer_errors` ought to be 0. A lost row is a line that the killed writer's files hold
        (after one refresh) or another's, and the registry does not; a torn one differs from its
        line.
    """
    folder.mkdir()
    runs = folder / "runs"
    logs = [folder / f"{number}.log" for number in range(WRITERS)]
    codes = _write_and_kill(runs, logs, seconds)
    registry = Registry.open(runs)
    before = _indexed(registry)
    registry.refresh()
    expected, indexed = _in_files(runs), _indexed(registry)
    living = {key: row for key, row in expected.items() if not key[0].startswith("w0-")}
    jobs = {job["experiment"] for job in Queue(runs).jobs()}
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


def _write_and_kill(runs: Path, logs: list[Path], seconds: float) -> list[int]:
    """Start a writer for each log and kill the first one half way; their exit codes."""
    with ExitStack() as stack:
        writers = []
        for number, log in enumerate(logs):
            line = ("-m", "benchmarks.registry", str(runs), str(seconds), str(number))
            errors = stack.enter_context(log.open("w"))
            writers.append(stack.enter_context(started(*line, stderr=errors)))
        while not list(runs.glob("w0-*")):  # from now on it writes for so many seconds
            if (code := writers[0].poll()) is not None:
                said = logs[0].read_text().strip()
                raise click.ClickException(f"a writer {how_it_ended(code)}: {said}")
            time.sleep(0.02)
        time.sleep(seconds / 2)
        writers[0].kill()
        return [writer.wait() for writer in writers]


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
    config = EXPERIMENT.read_text()
    registry = Registry.open(runs)
    queue = Queue(runs)
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
