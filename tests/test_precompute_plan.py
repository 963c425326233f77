"""Which rows are missing and in which shards they will stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import begin, commit, numbered_keys
from hypothesis import given, settings
from hypothesis import strategies as st

from precompute.plan import make_plan
from vqa_cache.shard import shard_name
from vqa_cache.table import Table

KEYS = numbered_keys(14)


def fill(table: Table, keys: tuple[bytes, ...], failed: dict[int, str] | None = None) -> None:
    commit(table, list(keys), np.zeros((len(keys), 4)), failed=failed)


def test_an_empty_table_needs_all_in_order(tmp_path: Path) -> None:
    table = begin(tmp_path / "cache")
    plan = make_plan(table, KEYS[:10], retry_failed=False)
    assert [shard.keys for shard in plan.shards] == [
        tuple(KEYS[0:4]), tuple(KEYS[4:8]), tuple(KEYS[8:10])
    ]  # fmt: skip
    assert [shard.name for shard in plan.shards] == [
        shard_name(table.id, list(shard.keys)) for shard in plan.shards
    ]
    assert (plan.present, plan.failed, plan.missing) == (0, 0, 10)


@settings(max_examples=25)
@given(st.integers(1, 14), st.integers(0, 3))
def test_what_is_done_does_not_move_the_rest(
    tmp_path_factory: pytest.TempPathFactory, count: int, done: int
) -> None:
    table = begin(tmp_path_factory.mktemp("plan") / "cache")
    plan = make_plan(table, KEYS[:count], retry_failed=False)
    for shard in plan.shards[:done]:
        fill(table, shard.keys)
    rest = make_plan(Table(table.folder), KEYS[:count], retry_failed=False)
    assert rest.shards == plan.shards[done:]
    assert rest.present + rest.missing == count


def test_growth_adds_only_what_is_new(tmp_path: Path) -> None:
    table = begin(tmp_path / "cache")
    for shard in make_plan(table, KEYS[:6], retry_failed=False).shards:
        fill(table, shard.keys)
    plan = make_plan(Table(table.folder), KEYS[::-1], retry_failed=False)
    assert [shard.keys for shard in plan.shards] == [
        tuple(KEYS[13:9:-1]), tuple(KEYS[9:5:-1])
    ]  # fmt: skip
    assert make_plan(Table(table.folder), KEYS[2:4], retry_failed=False).shards == ()


def test_failures_are_planned_again_only_on_request(tmp_path: Path) -> None:
    table = begin(tmp_path / "cache")
    fill(table, tuple(KEYS[:4]), {1: "bad", 3: "bad"})
    plan = make_plan(Table(table.folder), KEYS[:6], retry_failed=False)
    assert [shard.keys for shard in plan.shards] == [tuple(KEYS[4:6])]
    assert (plan.present, plan.failed, plan.missing) == (2, 2, 2)
    retry = make_plan(Table(table.folder), KEYS[:4], retry_failed=True)
    assert [shard.keys for shard in retry.shards] == [(KEYS[1], KEYS[3])]
    assert (retry.failed, retry.missing) == (0, 2)


def test_a_retry_has_a_name_of_its_own(tmp_path: Path) -> None:
    table = begin(tmp_path / "cache")
    names = []
    for _ in range(3):
        [shard] = make_plan(Table(table.folder), KEYS[:2], retry_failed=True).shards
        names.append(shard.name)
        retry = len(names) - 1
        assert shard.name == shard_name(table.id, KEYS[:2], retry)
        commit(table, KEYS[:2], np.zeros((2, 4)), failed={0: "bad", 1: "bad"}, retry=retry)
    assert len(set(names)) == 3
    assert len(Table(table.folder).shards) == 3


def test_a_table_of_other_items_counts_for_nothing(tmp_path: Path) -> None:
    table = begin(tmp_path / "cache")
    fill(table, tuple(KEYS[:4]), {0: "bad"})
    plan = make_plan(Table(table.folder), KEYS[8:10], retry_failed=True)
    assert (plan.present, plan.failed, plan.missing) == (0, 0, 2)
    assert make_plan(Table(table.folder), [], retry_failed=True).shards == ()
