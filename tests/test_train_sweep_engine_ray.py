"""`--engine ray`: the same trials as a local sweep, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_precompute_engine_ray import needs_ray
from test_train_small_cache import write_experiment

from benchmarks.measuring.ray_driver import Driver
from train.sweep.__main__ import command


@pytest.fixture
def arguments(cache: Path, tmp_path: Path) -> tuple[Any, ...]:
    """A sweep whose proposals depend on earlier results, with two packs a round."""
    name = write_experiment(tmp_path)
    varied = ("optimizer.lr=log:1e-4:1e-1", "head.hidden=[8],[16]", "train.epochs=60")
    how = ("--trials", 16, "--winners", 0, "--cache", cache, "--json")
    return (name, *varied, *how)


def trials_of(runs: Path) -> list[dict[str, Any]]:
    (record,) = runs.glob("sweep-*/trials.jsonl")
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    assert sorted(row["trial"] for row in rows) == list(range(len(rows)))
    return sorted(rows, key=lambda row: row["trial"])


@needs_ray
def test_trials_are_those_of_a_local_sweep_although_a_process_is_killed(
    arguments: tuple[Any, ...], tmp_path: Path
) -> None:
    local = Driver(*arguments, "--runs", tmp_path / "local", module="train.sweep")
    status, told = local.wait()
    assert status == 0, told
    more = ("--runs", tmp_path / "ray", "--engine", "ray")
    on_ray = Driver(*arguments, *more, module="train.sweep")
    at_work = on_ray.until(lambda: on_ray.at_work("train_remotely"))
    os.kill(at_work[0], signal.SIGKILL)
    status, told = on_ray.wait()
    assert status == 0, told
    assert trials_of(tmp_path / "ray") == trials_of(tmp_path / "local")


@needs_ray
def test_a_stopped_sweep_goes_on_without_ray(arguments: tuple[Any, ...], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    on_ray = Driver(*arguments, "--runs", runs, "--engine", "ray", module="train.sweep")
    on_ray.until(lambda: [path for path in runs.glob("*/trials.jsonl") if path.stat().st_size])
    on_ray.process.send_signal(signal.SIGTERM)
    status, told = on_ray.wait()
    assert status == 143, told
    assert told.splitlines()[-1] == (
        "stopped by a signal; finished packs are kept; the same command goes on"
    )
    kept = trials_of_unfinished(runs)
    assert 0 < len(kept) < 16
    status, told = Driver(*arguments, "--runs", runs, module="train.sweep").wait()
    assert status == 0, told
    rows = trials_of(runs)
    assert len(rows) == 16
    assert all(rows[row["trial"]] == row for row in kept)


def trials_of_unfinished(runs: Path) -> list[dict[str, Any]]:
    (record,) = runs.glob("sweep-*/trials.jsonl")
    return [json.loads(line) for line in record.read_text().splitlines()]


@needs_ray
def test_no_cluster_is_one_line(arguments: tuple[Any, ...], tmp_path: Path) -> None:
    more = ("--runs", tmp_path / "runs", "--engine", "ray")
    driver = Driver(*arguments, *more, module="train.sweep", RAY_ADDRESS="127.0.0.1:1")
    status, told = driver.wait()
    assert status == 1, told
    assert told.splitlines()[-1].startswith("error: engine ray: no cluster at RAY_ADDRESS=127.0.0")
    assert "Traceback" not in told


def test_without_ray_the_package_is_named(
    arguments: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its own
    line = [str(word) for word in (*arguments, "--runs", tmp_path / "runs", "--engine", "ray")]
    result = CliRunner().invoke(command, line)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "error: --engine ray needs the package ray: pip install 'vqa-cache[ray]'"
    )
