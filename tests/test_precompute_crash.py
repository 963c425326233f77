"""Killed, stopped, out of disk: the same command again ends in the same bytes.

Kills of every kind of work and at every operation are in test_benchmarks_faults.py.
"""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import BERT, RESNET, VIT, write_dataset

import vqa_cache
from benchmarks.measuring.warm import Finished, Started, Warm
from vqa_cache.tools.verify import verify

ENCODERS = ("--image", VIT, "--text", BERT, "--answer-text", BERT)


def command(dataset: Path, cache: Path, *more: object, precision: str = "fp32") -> tuple[Any, ...]:
    where = ("--dataset", "jsonl", "--root", dataset, "--cache", cache)
    return (*where, "--rows-per-shard", 5, "--precision", precision, *more)


def kept(cache: Path) -> dict[str, bytes]:
    """Every file that is part of the cache, by its place in it."""
    parts = ("tables", "examples")
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for part in parts
        for path in sorted((cache / part).rglob("*"))
        if path.is_file() and ".tmp-" not in str(path)
    }


def assert_same(cache: Path, whole: dict[str, bytes]) -> None:
    found = kept(cache)
    assert sorted(found) == sorted(whole)
    assert [name for name in whole if found[name] != whole[name]] == []
    opened = vqa_cache.open(cache)
    assert list(verify(opened)) == []
    assert all(len(table.specs()) == 1 for table in opened.tables.values())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("small") / "data", images=7, train=6, test=3)


class Whole:
    """Caches of runs that nothing interrupted, made when first asked for."""

    def __init__(self, warm: Warm, dataset: Path, folder: Path) -> None:
        self._warm, self._dataset, self._folder = warm, dataset, folder
        self._made: dict[tuple[Any, ...], tuple[dict[str, bytes], int]] = {}

    def __call__(self, *more: object, **how: Any) -> tuple[dict[str, bytes], int]:
        """Its files, and how many operations on files it took."""
        key = (*more, *sorted(how.items()))
        if key not in self._made:
            cache = self._folder / str(len(self._made))
            done = self._warm(*command(self._dataset, cache, *more, **how), count=1)
            assert done.status == 0, done.stderr
            self._made[key] = kept(cache), len(done.operations)
        return self._made[key]


@pytest.fixture(scope="module")
def whole(warm: Warm, small: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(warm, small, tmp_path_factory.mktemp("whole"))


def test_another_number_of_workers_writes_the_same_bytes(
    warm: Warm, small: Path, whole: Whole, tmp_path: Path
) -> None:
    done = warm(*command(small, tmp_path / "cache", *ENCODERS, "--workers", 5))
    assert done.status == 0
    assert_same(tmp_path / "cache", whole(*ENCODERS)[0])


@pytest.mark.parametrize("share", [0.58, 0.83])
def test_killed_and_run_again_by_other_workers(
    warm: Warm, small: Path, whole: Whole, tmp_path: Path, share: float
) -> None:
    files, operations = whole(*ENCODERS)
    cache = tmp_path / "cache"
    killed = warm(*command(small, cache, *ENCODERS), kill_at=int(share * operations))
    assert killed.status == -signal.SIGKILL
    assert kept(cache) != files
    workers = 1 + int(share * 100) % 4
    done = warm(*command(small, cache, *ENCODERS, "--workers", workers))
    assert done.status == 0, done.stderr
    assert_same(cache, files)


def test_killed_amid_bf16(warm: Warm, small: Path, whole: Whole, tmp_path: Path) -> None:
    how = ("--image", VIT, "--dtype", "bf16", "--batch-size", 2)
    files, operations = whole(*how, precision="bf16")
    again = command(small, tmp_path / "cache", *how, precision="bf16")
    assert warm(*again, kill_at=int(0.85 * operations)).status == -signal.SIGKILL
    assert warm(*again).status == 0
    assert_same(tmp_path / "cache", files)
    assert files != whole(*how, precision="fp32")[0]


def test_killed_again_and_again(warm: Warm, small: Path, whole: Whole, tmp_path: Path) -> None:
    files, _ = whole(*ENCODERS)
    cache = tmp_path / "cache"
    for kill_at in (60, 40, 25, 15):
        warm(*command(small, cache, *ENCODERS), kill_at=kill_at)
    assert warm(*command(small, cache, *ENCODERS)).status == 0
    assert_same(cache, files)


def test_killed_before_the_cache_has_its_name(
    warm: Warm, small: Path, whole: Whole, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    assert warm(*command(small, cache, *ENCODERS), kill_at=0).status == -signal.SIGKILL
    done = warm(*command(small, cache, *ENCODERS))
    assert done.status == 0, done.stderr
    assert_same(cache, whole(*ENCODERS)[0])


def test_nothing_unfinished_is_left_for_good(warm: Warm, small: Path, tmp_path: Path) -> None:
    """Temporaries of killed runs would otherwise pile up."""
    cache = tmp_path / "cache"
    left = set()
    for kill_at in (2, 14, 5, 9):  # each run gets further than the one before
        warm(*command(small, cache, "--image", VIT), kill_at=kill_at)
        left |= {path.parent.name for path in cache.rglob(".tmp-*")}
    assert left
    assert warm(*command(small, cache, "--image", VIT)).status == 0
    assert [str(path.relative_to(cache)) for path in cache.rglob(".tmp-*")] == []


# ---------------------------------------------------------------- from outside


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("large") / "data", images=160, train=160, test=0)


def first_record(started: Started, cache: Path) -> None:
    """Wait for the first commit of a running process."""
    deadline = time.monotonic() + 30
    while not any(cache.glob("tables/*/*/*/*/records/*.json")):
        assert time.monotonic() < deadline
        assert not (started.output / "status").exists()
        time.sleep(0.002)


@pytest.fixture(scope="module")
def interrupted(warm: Warm, large: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Start slow work over many images, to be interrupted by a signal."""
    slow = ("--image", RESNET, "--batch-size", 1)
    whole = tmp_path_factory.mktemp("slow") / "cache"
    assert warm(*command(large, whole, *slow)).status == 0

    def interrupt(cache: Path, number: signal.Signals) -> tuple[Finished, Finished]:
        started = warm.start(*command(large, cache, *slow))
        first_record(started, cache)
        os.kill(started.pid, number)
        done = started.wait()
        assert 0 < len(list(cache.glob("tables/*/*/*/*/records/*.json"))) < 32
        again = warm(*command(large, cache, *slow))
        assert_same(cache, kept(whole))
        return done, again

    return interrupt


def test_kill_nine_from_outside(interrupted: Any, tmp_path: Path) -> None:
    done, again = interrupted(tmp_path / "cache", signal.SIGKILL)
    assert done.status == -signal.SIGKILL
    assert again.status == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_in_order(interrupted: Any, tmp_path: Path, number: signal.Signals) -> None:
    done, again = interrupted(tmp_path / "cache", number)
    assert done.status == 143
    last = done.stderr.splitlines()[-1]
    told = re.fullmatch(
        r"stopped by a signal: image/\S+: (\d+) of 160 rows are kept, 0 of a shard of 5 are lost; "
        "the same command goes on",
        last,
    )
    assert told, last
    assert "Traceback" not in done.stderr
    assert again.status == 0
    assert f": {told[1]} of 160 there" in again.stderr  # what it said is kept


# ---------------------------------------------------------------- a full disk


@pytest.mark.parametrize("share", [0.6])
def test_a_full_disk_is_one_line_and_no_loss(
    warm: Warm, small: Path, whole: Whole, tmp_path: Path, share: float
) -> None:
    files, operations = whole(*ENCODERS)
    cache = tmp_path / "cache"
    from_here = {"fail_at": int(share * operations), "errno": "ENOSPC", "calls": "writes"}
    full = warm(*command(small, cache, *ENCODERS), **from_here)
    told = full.error_line()
    assert "No space left on device" in told
    assert str(cache) in told  # which disk
    assert not list(cache.rglob(".tmp-*"))
    done = warm(*command(small, cache, *ENCODERS))
    assert done.status == 0, done.stderr
    assert_same(cache, files)


@pytest.mark.parametrize("limit", [3_000, 60_000])
def test_a_file_that_may_not_grow_is_one_line(
    warm: Warm, small: Path, whole: Whole, tmp_path: Path, limit: int
) -> None:
    """Unlike a failing write of ours, this meets the memo's and HDF5's own writes."""
    cache = tmp_path / "cache"
    how = (*ENCODERS, "--rows-per-shard", 5)
    full = warm(*command(small, cache, *how), file_limit=limit)
    assert full.error_line()
    done = warm(*command(small, cache, *how))
    assert done.status == 0, done.stderr
    assert_same(cache, whole(*ENCODERS)[0])
