"""Runs that fill one table at the same time share its shards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import VIT, write_dataset

import vqa_cache
from benchmarks.measuring.warm import Started, Warm
from precompute.plan import make_plan
from vqa_cache.keys import image_key
from vqa_cache.system.durable import claimed, has_writer
from vqa_cache.table import Table
from vqa_cache.tools.verify import verify

ROWS, IMAGES = 3, 12


@pytest.fixture
def begin(warm: Warm, tmp_path: Path) -> Callable[..., Started]:
    data = write_dataset(tmp_path / "data", images=IMAGES, train=IMAGES, test=0)
    where = ("--dataset", "jsonl", "--root", data, "--cache", tmp_path / "cache", "--image", VIT)
    return lambda *more: warm.start(*where, "--rows-per-shard", ROWS, *more)


def only_table(folder: Path) -> Table:
    [table] = vqa_cache.open(folder / "cache").tables.values()
    return table


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_shard_that_another_run_has_begun_comes_last(
    begin: Callable[..., Started], tmp_path: Path
) -> None:
    assert begin("--limit", 1).wait().status == 0  # the table, with one row
    table = only_table(tmp_path)
    names = sorted((tmp_path / "data" / "images").iterdir(), key=lambda path: int(path.stem))
    planned = make_plan(table, [image_key(str(path)) for path in names], retry_failed=False).shards
    records = table.folder / "records"
    first = planned[0].name
    with claimed(table.folder / "shards" / first, first) as mine:
        assert mine
        run = begin()
        until(lambda: len(list(records.glob("[0-9a-f]*.json"))) == len(planned))
        assert not run.ended
        assert not (records / f"{first}.json").exists()
    done = run.wait()
    assert done.status == 0, done.stderr
    assert (
        f"another run fills {table.name} too: each takes shards that no other has begun"
        in done.stderr
    )
    assert len(only_table(tmp_path)) == IMAGES
    assert list(verify(vqa_cache.open(tmp_path / "cache"))) == []
    assert not list((table.folder / "shards").glob(".tmp-*"))


def test_a_stop_while_others_encode_ends_at_once(
    begin: Callable[..., Started], tmp_path: Path
) -> None:
    assert begin("--limit", 1).wait().status == 0
    table = only_table(tmp_path)
    names = sorted((tmp_path / "data" / "images").iterdir(), key=lambda path: int(path.stem))
    keys = [image_key(str(path)) for path in names[: ROWS + 1]]
    [planned] = make_plan(table, keys, retry_failed=False).shards
    with claimed(table.folder / "shards" / planned.name, planned.name):
        run = begin("--limit", ROWS + 1)
        told = run.output / "stderr"
        until(lambda: told.exists() and "another run" in told.read_text())
        os.kill(run.pid, signal.SIGTERM)
        done = run.wait(20)
    assert done.status == 143
    assert f"1 of {ROWS + 1} rows are kept, 0 of a shard" in done.stderr


def test_two_runs_at_once_encode_each_shard_once(
    begin: Callable[..., Started], tmp_path: Path
) -> None:
    done = [run.wait() for run in [begin(), begin()]]
    assert [one.status for one in done] == [0, 0], [one.stderr for one in done]
    assert len(only_table(tmp_path)) == IMAGES
    assert list(verify(vqa_cache.open(tmp_path / "cache"))) == []


def test_a_claim_goes_with_its_holder(tmp_path: Path) -> None:
    token = "0" * 32
    shard, claim = tmp_path / "shard.h5", tmp_path / f".tmp-{token}"
    with claimed(shard, token) as first, claimed(shard, token) as second:
        assert (first, second) == (True, False)
        assert has_writer(claim)
    assert not claim.exists()
    claim.mkdir()
    (claim / "lock").touch()  # as one leaves it that was killed
    assert not has_writer(claim)
    with claimed(shard, token) as again:
        assert again
    assert not claim.exists()
