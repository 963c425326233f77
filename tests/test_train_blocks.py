"""Shuffling a large table in windows: every sample once, every window a sample of the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import begin, commit, numbered_keys

from train.inputs.large.blocks import Blocks, BlockSizes, cut, deal, in_row_order, shuffle
from vqa_cache.table import Table

ROW_BYTES = 4 * 2  # of the tables here: four float16
SIZES = BlockSizes(large=0, window=6 * ROW_BYTES, block=2 * ROW_BYTES)


def blocks_of(count: int, per_window: int) -> Blocks:
    """Blocks of three rows each, all of one shard."""
    rows = torch.arange(3 * count)
    return Blocks(
        of_row=(rows // 3).int(),
        first=rows[::3],
        count=torch.full((count,), 3),
        shard=torch.zeros(count, dtype=torch.int64),
        per_window=per_window,
        bytes=1,
    )


def table_of(root: Path, shards: list[list[bytes]]) -> Table:
    """A table with these keys."""
    table = begin(root)
    for keys in shards:
        commit(table, keys, np.zeros((len(keys), 4)))
    return Table(table.folder)


@pytest.mark.parametrize(("blocks", "per_window"), [(1, 4), (12, 4), (13, 4), (29, 7), (30, 1)])
def test_windows_are_small_enough_and_take_one_of_each_neighbourhood(
    blocks: int, per_window: int
) -> None:
    windows = deal(blocks_of(blocks, per_window), data_seed=0, epoch=0)
    sizes = torch.bincount(windows.of_block, minlength=windows.count)
    assert len(sizes) == windows.count
    assert sizes.max() <= per_window
    assert sizes.sum() == blocks
    for neighbours in windows.of_block.split(windows.count):
        assert len(neighbours.unique()) == len(neighbours)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    blocks = blocks_of(40, 5)

    def order(**which: Any) -> torch.Tensor:
        window = deal(blocks, **which).of_block[blocks.of_row.long()]
        return shuffle(window, **which)

    first = order(data_seed=0, epoch=0)
    assert torch.equal(first, order(data_seed=0, epoch=0))
    assert not torch.equal(first, order(data_seed=0, epoch=1))
    assert not torch.equal(first, order(data_seed=1, epoch=0))


def test_every_sample_comes_once_and_windows_do_not_mix() -> None:
    blocks = blocks_of(40, 5)
    windows = deal(blocks, data_seed=3, epoch=1)
    window = windows.of_block[blocks.of_row.long()]
    order = shuffle(window, data_seed=3, epoch=1)
    assert order.sort().values.tolist() == list(range(120))
    assert window[order].tolist() == sorted(window.tolist())
    inside = order[window[order] == 0]
    assert inside.tolist() != sorted(inside.tolist())


def test_a_window_of_sorted_data_holds_its_share_of_every_class() -> None:
    blocks = blocks_of(400, 40)  # 10 windows, 1,200 rows
    label = torch.arange(1200) // 120  # 10 classes, sorted
    windows = deal(blocks, data_seed=0, epoch=0)
    for number in range(windows.count):
        found = torch.bincount(label[windows.of_block[blocks.of_row.long()] == number])
        assert found.tolist() == [12] * 10


def test_row_order_takes_the_blocks_of_some_rows_alone() -> None:
    windows = in_row_order(blocks_of(10, 2), torch.tensor([0, 1, 12, 14, 29]))
    assert windows.of_block.tolist() == [0, -1, -1, -1, 0, -1, -1, -1, -1, 1]
    assert windows.count == 2


def test_a_table_is_cut_where_it_is_large_and_only_where_it_is_used(tmp_path: Path) -> None:
    keys = numbered_keys(12)
    table = table_of(tmp_path, [keys[:7], keys[7:]])
    used = np.arange(12)
    assert cut(table, used, BlockSizes(large=12 * ROW_BYTES)) is None
    blocks = cut(table, used, SIZES)
    assert blocks is not None
    assert (len(blocks), blocks.per_window, blocks.bytes) == (7, 3, 12 * ROW_BYTES)
    assert sorted(blocks.count.tolist()) == [1, 1, 2, 2, 2, 2, 2]
    assert blocks.of_row.unique().tolist() == list(range(7))
    some = cut(table, np.array([1, 11]), SIZES)
    assert some is not None
    assert len(some) == 2
    assert (some.of_row >= 0).nonzero()[:, 0].tolist() == [1, 11]
    assert some.of_rows(np.array([1, 11])).of_row.tolist() == [0, 1]


def test_a_cache_that_grows_changes_no_block_of_what_was_there(tmp_path: Path) -> None:
    keys = numbered_keys(30)
    before = table_of(tmp_path, [keys[:7], keys[7:12]])
    used = before.row_index(before.keys)
    blocks = cut(before, used, SIZES)
    old_keys = before.keys
    after = table_of(tmp_path, [keys[start : start + 3] for start in range(12, 30, 3)])
    moved = after.row_index(old_keys)
    assert moved.tolist() != used.tolist(), "the other shards come between"
    grown = cut(after, moved, SIZES)
    assert blocks is not None
    assert grown is not None
    assert torch.equal(grown.of_row[torch.from_numpy(moved)], blocks.of_row)
    assert torch.equal(
        deal(grown, data_seed=0, epoch=2).of_block, deal(blocks, data_seed=0, epoch=2).of_block
    )
