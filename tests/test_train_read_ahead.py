"""Rows from files: the numbers of the table, windows read once and ahead, damage told clearly."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import begin, commit, numbered_keys

from train.inputs.large.blocks import Blocks, BlockSizes, Windows, cut, deal, in_row_order
from train.inputs.large.mapped_rows import MappedRows, Run
from train.inputs.large.read_ahead import ReadAhead
from vqa_cache.errors import DamagedError
from vqa_cache.table import Table

ROW_BYTES = 6 * 2
SIZES = BlockSizes(large=0, window=8 * ROW_BYTES, block=2 * ROW_BYTES)


@pytest.fixture(params=["float16", "bfloat16", "float32", "int8"])
def table(tmp_path: Path, request: pytest.FixtureRequest) -> Table:
    """50 rows [2, 3] in shards of 7, two of them a second time, where they are not served."""
    return make_table(tmp_path, request.param)


def make_table(root: Path, dtype: str = "float16") -> Table:
    made = begin(root, row_shape=(2, 3), dtype=dtype)
    keys = numbered_keys(50)
    values = np.random.default_rng(0).standard_normal((50, 2, 3))
    for start in range(0, 50, 7):
        own = slice(max(0, start - 2 * (start == 14)), start + 7)
        commit(made, keys[own], values[own])
    return Table(made.folder)


def ahead_of(table: Table, sizes: BlockSizes = SIZES) -> tuple[ReadAhead, Blocks]:
    blocks = cut(table, np.arange(len(table)), sizes)
    assert blocks is not None
    return ReadAhead(MappedRows(table), blocks), blocks


class Reads:
    """Counts what is read of each window, and on which thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[list[Run]] = []
        self.threads: set[str] = set()
        read = MappedRows.read

        def spy(rows: MappedRows, runs: list[Run], out: torch.Tensor) -> None:
            self.runs.append(runs)
            self.threads.add(threading.current_thread().name)
            read(rows, runs, out)

        monkeypatch.setattr(MappedRows, "read", spy)


def in_windows(blocks: Blocks, windows: Windows) -> torch.Tensor:
    """All rows, window after window, as batches of a training ask for them."""
    return windows.of_block[blocks.of_row.long()].argsort(stable=True)


def test_rows_come_from_many_shards_in_any_order(table: Table) -> None:
    mapped = MappedRows(table)
    expected = table.read()
    index = torch.randint(50, (200,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(mapped.index_select(0, index), expected[index])
    assert mapped.index_select(0, index[:0]).shape == (0, *table.record.stored_shape)
    assert (mapped.shape, len(mapped)) == ((50, *table.record.stored_shape), 50)


@pytest.mark.parametrize("batch", [1, 5, 50])
def test_windows_give_the_rows_of_the_table_and_are_read_once(
    table: Table, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(monkeypatch)
    rows, blocks = ahead_of(table)
    windows = deal(blocks, data_seed=0, epoch=0)
    assert windows.count > 5
    rows.expect(windows)
    expected = table.read()
    for index in in_windows(blocks, windows).split(batch):
        assert torch.equal(rows.index_select(0, index), expected[index])
        rows.expect(windows)  # as often as one likes
    assert len(reads.runs) == windows.count
    assert all(name.startswith("read-ahead") for name in reads.threads)


def test_the_next_window_is_being_read_when_one_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows, blocks = ahead_of(make_table(tmp_path))
    windows = deal(blocks, data_seed=0, epoch=0)
    asked = [threading.Event() for _ in range(windows.count)]
    count = 0
    read = MappedRows.read

    def spy(*given: Any) -> None:
        nonlocal count
        asked[count].set()
        count += 1
        read(*given)

    monkeypatch.setattr(MappedRows, "read", spy)
    rows.expect(windows)
    first = (windows.of_block[blocks.of_row.long()] == 0).nonzero()[:, 0]
    rows.index_select(0, first)
    assert asked[1].wait(timeout=30)
    assert not asked[2].wait(timeout=0.05), "two windows are held, not three"


def test_a_training_that_goes_on_reads_from_its_window_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = make_table(tmp_path)
    reads = Reads(monkeypatch)
    rows, blocks = ahead_of(table)
    windows = deal(blocks, data_seed=0, epoch=0)
    rows.expect(windows)
    window = windows.of_block[blocks.of_row.long()]
    index = in_windows(blocks, windows)
    later = index[window[index] >= 4]
    for batch in later.split(3):
        rows.index_select(0, batch)
    assert len(reads.runs) == windows.count - 4


def test_jumps_and_rows_that_nobody_expected_give_the_same_numbers(table: Table) -> None:
    rows, blocks = ahead_of(table)
    expected = table.read()
    every = torch.arange(50)
    assert torch.equal(rows.index_select(0, every), expected), "no windows yet"
    draw = torch.Generator().manual_seed(1)
    for number in range(30):
        plan = in_row_order(blocks, torch.tensor([3, 40])) if number % 3 == 0 else None
        rows.expect(plan or deal(blocks, data_seed=0, epoch=number))
        index = torch.randint(50, (4,), generator=draw)
        assert torch.equal(rows.index_select(0, index), expected[index])


def test_neighbours_are_read_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = make_table(tmp_path)
    reads = Reads(monkeypatch)
    rows, blocks = ahead_of(table, BlockSizes(large=0, window=2**20, block=2 * ROW_BYTES))
    rows.expect(in_row_order(blocks, torch.arange(50)))
    rows.index_select(0, torch.arange(50))
    assert [len(runs) for runs in reads.runs] == [len(table.shards)]


def test_memory_is_that_of_two_windows(tmp_path: Path) -> None:
    rows, blocks = ahead_of(make_table(tmp_path))
    windows = deal(blocks, data_seed=0, epoch=0)
    rows.expect(windows)
    for batch in in_windows(blocks, windows).split(4):
        rows.index_select(0, batch)
    assert sum(buffer.nbytes for buffer in rows._buffers) <= 2 * SIZES.window


def test_a_missing_or_short_file_is_told_at_once(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    path = next(table.folder.glob("shards/*"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError, match=r"bytes, expected .*--repair"):
        MappedRows(table)
    path.unlink()
    with pytest.raises(DamagedError, match=r"missing.*--repair"):
        MappedRows(table)


@pytest.mark.parametrize(("damage", "message"), [("cut", "bytes, expected"), ("gone", "missing")])
def test_damage_while_training_is_one_clear_error(
    tmp_path: Path, damage: str, message: str
) -> None:
    table = make_table(tmp_path)
    rows, blocks = ahead_of(table)
    for path in table.folder.glob("shards/*"):
        if damage == "cut":
            with path.open("r+b") as file:
                file.truncate(10)
        else:
            path.unlink()
    rows.expect(deal(blocks, data_seed=0, epoch=0))
    with pytest.raises(DamagedError) as raised:
        rows.index_select(0, torch.arange(50))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert str(table.folder) in str(raised.value)
    assert "--repair" in str(raised.value)


def test_no_thread_outlives_the_table(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    rows, blocks = ahead_of(make_table(tmp_path))
    rows.expect(deal(blocks, data_seed=0, epoch=0))
    rows.index_select(0, torch.arange(50))
    mine = set(threading.enumerate()) - before
    assert len(mine) == 1
    del rows
    gc.collect()
    for thread in mine:
        thread.join(timeout=30)
        assert not thread.is_alive()
