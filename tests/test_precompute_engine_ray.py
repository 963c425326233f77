"""`--engine ray`: the same bytes as a local run, whatever is killed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import BERT, RESNET, VIT, write_dataset
from test_precompute_crash import assert_same, kept

from benchmarks.measuring import ray_driver
from benchmarks.measuring.ray_driver import Driver
from precompute.__main__ import main

needs_ray = pytest.mark.skipif(ray_driver.why_not() is not None, reason=str(ray_driver.why_not()))
IMAGES, ROWS = 400, 5
SHARDS = IMAGES // ROWS  # of images


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("many") / "data", images=IMAGES, train=IMAGES, test=0
    )


def command(dataset: Path, cache: Path, *more: object) -> tuple[Any, ...]:
    where = ("--dataset", "jsonl", "--root", dataset, "--cache", cache)
    return (*where, "--image", VIT, "--rows-per-shard", ROWS, "--precision", "fp32", *more)


@pytest.fixture(scope="module")
def whole(many: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a local run that nothing interrupted."""
    cache = tmp_path_factory.mktemp("whole") / "cache"
    status, told = Driver(*command(many, cache, "--text", BERT)).wait()
    assert status == 0, told
    return kept(cache)


def committed(cache: Path) -> int:
    return len(list(cache.glob("tables/image/*/*/*/records/[0-9a-f]*.json")))


@needs_ray
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two processes need two cores")
def test_one_of_two_processes_killed_half_way_costs_its_shard(
    many: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    driver = Driver(*command(many, cache, "--text", BERT, "--engine", "ray"))
    driver.until(lambda: committed(cache) >= SHARDS // 2)
    at_work = driver.until(lambda: len(found := driver.at_work("encode_shard")) >= 2 and found)
    os.kill(at_work[0], signal.SIGKILL)
    before = committed(cache)
    status, told = driver.wait()
    assert status == 0, told
    assert SHARDS // 2 <= before < SHARDS
    assert_same(cache, whole)
    assert list(cache.rglob(".tmp-*")) == []


@needs_ray
def test_local_and_ray_runs_resume_each_other(
    many: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    again = command(many, cache, "--text", BERT)
    local = Driver(*again)
    local.until(lambda: committed(cache) >= 5)
    local.process.kill()
    local.wait()
    on_ray = Driver(*again, "--engine", "ray")
    begun = committed(cache)
    on_ray.until(lambda: committed(cache) >= begun + 5)
    on_ray.process.send_signal(signal.SIGTERM)
    status, told = on_ray.wait()
    assert status == 143, told
    assert "stopped by a signal; committed shards are kept" in told
    assert committed(cache) < SHARDS
    status, told = Driver(*again).wait()
    assert status == 0, told
    assert_same(cache, whole)


@needs_ray
def test_a_broken_image_is_one_line(many: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", images=12, train=12, test=0)
    broken = data / "images" / "7.jpg"
    broken.write_bytes(broken.read_bytes()[:60])
    cache = tmp_path / "cache"
    status, told = Driver(*command(data, cache, "--engine", "ray")).wait()
    assert status == 1
    [line] = [line for line in told.splitlines() if line.startswith("error: ")]
    assert str(broken) in line
    assert "--on-error skip" in line
    assert "Traceback" not in told


@needs_ray
def test_no_cluster_is_one_line(many: Path, tmp_path: Path) -> None:
    driver = Driver(
        *command(many, tmp_path / "cache", "--engine", "ray"), RAY_ADDRESS="127.0.0.1:1"
    )
    status, told = driver.wait()
    assert status == 1, told
    assert told.splitlines()[-1].startswith("error: engine ray: no cluster at RAY_ADDRESS=127.0.0")
    assert "Traceback" not in told


def test_without_ray_the_package_is_named(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its own
    arguments = command(many, tmp_path / "cache", "--limit", 5, "--engine", "ray")
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "error: --engine ray needs the package ray: pip install 'vqa-cache[ray]'"
    )


@needs_ray
def test_several_taps_in_one_pass_write_the_bytes_of_runs_of_their_own(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", images=12, train=12, test=0)
    where = ("--dataset", "jsonl", "--root", data, "--rows-per-shard", ROWS, "--precision", "fp32")
    taps = (f"{RESNET}:tap=layer1:grid=2", f"{RESNET}:tap=layer3")
    for tap in taps:
        status, told = Driver(*where, "--cache", tmp_path / "alone", "--image", tap).wait()
        assert status == 0, told
    both = (*where, "--cache", tmp_path / "ray", "--image", taps[0], "--image", taps[1])
    status, told = Driver(*both, "--engine", "ray").wait()
    assert status == 0, told
    assert_same(tmp_path / "ray", kept(tmp_path / "alone"))
