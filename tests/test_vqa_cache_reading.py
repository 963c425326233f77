"""Rows read into memory: equal to the mapped ones, and never wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import begin, commit, numbered_keys

from vqa_cache.arrays import BLOCK_BYTES
from vqa_cache.errors import DamagedError
from vqa_cache.table import Table

WIDTH = 1024
ROWS = BLOCK_BYTES // (2 * WIDTH) + 100  # more than a block of float16


@pytest.fixture(params=["hdf5", "zarr"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    """Two shards, the first of two blocks."""
    made = begin(tmp_path / "cache", row_shape=(WIDTH,), container=request.param)
    rows = np.random.default_rng(0).standard_normal((ROWS + 7, WIDTH), dtype=np.float32)
    commit(made, numbered_keys(ROWS), rows[:ROWS])
    commit(made, numbered_keys(7, ROWS), rows[ROWS:])
    return Table(made.folder)


def place_of(table: Table, byte: int) -> tuple[Path, int]:
    """File and offset of a byte of the larger shard's rows."""
    record = max(table.shards, key=lambda record: record.rows)
    array = record.arrays["rows"]
    return table.folder / record.path("rows"), array.offset + byte


def test_read_gives_what_is_mapped(table: Table) -> None:
    mapped = torch.cat([table.mapped(number) for number in range(2)])
    assert torch.equal(table.read(), mapped)
    assert torch.equal(table.tensor(), mapped), "several shards are read"


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 16]))


@pytest.mark.parametrize("byte", [0, 300_000, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * WIDTH * ROWS - 1])
def test_a_flipped_bit_is_found_and_placed(table: Table, byte: int) -> None:
    path, place = place_of(table, byte)
    flip(path, place)
    start = place_of(table, byte // BLOCK_BYTES * BLOCK_BYTES)[1]
    expected = (
        rf"{path.name}: the rows in bytes {start} to \d+ were changed; mend it: python -m prec"
    )
    with pytest.raises(DamagedError, match=expected):
        table.read()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), r"ends after \d+ bytes"),
        (Path.unlink, r"cannot be read \(No such file or directory\)"),
    ],
)
def test_a_short_or_missing_file_is_one_clear_line(
    table: Table, damage: Callable[[Path], object], what: str
) -> None:
    path, _ = place_of(table, 0)
    damage(path)
    with pytest.raises(DamagedError, match=rf"{path.name}: {what}; mend it: python -m precompute"):
        table.read()


def test_doubles_are_read_once(tmp_path: Path) -> None:
    made = begin(tmp_path / "cache")
    commit(made, numbered_keys(4), np.full((4, 4), 1, np.float32))
    commit(made, numbered_keys(4, 2), np.full((4, 4), 2, np.float32))
    table = Table(made.folder)
    assert table.read().shape == (6, 4)
    index = torch.from_numpy(table.row_index(table.keys))
    assert torch.equal(table.read()[index], table.rows([key.tobytes() for key in table.keys]))
