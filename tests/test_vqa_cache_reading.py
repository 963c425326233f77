"""Rows read into memory: equal to the mapped ones, and never wrong."""

from __future__ import annotations

import ast
import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import begin, commit, numbered_keys

from train.inputs.large.mapped_rows import MappedRows, Run
from vqa_cache.arrays import check_files
from vqa_cache.cache import create_cache
from vqa_cache.errors import DamagedError
from vqa_cache.records.shard import ShardRecord
from vqa_cache.records.stored import BLOCK_BYTES
from vqa_cache.table import Table
from vqa_cache.tools.exporting import export_table
from vqa_cache.tools.transfer import copy_table

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
        rf"{path.name}: bytes {start} to \d+, of array 'rows', differ from their checksum; "
        "mend it: the command of stage 1"
    )
    with pytest.raises(DamagedError, match=expected):
        table.read()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), r"5000 bytes, expected \d+"),
        (Path.unlink, "missing"),
    ],
)
def test_a_short_or_missing_file_is_one_clear_line(
    table: Table, damage: Callable[[Path], object], what: str
) -> None:
    path, _ = place_of(table, 0)
    damage(path)
    with pytest.raises(
        DamagedError, match=rf"{path.name}: {what}; mend it: the command of stage 1"
    ):
        table.read()


def test_doubles_are_read_once(tmp_path: Path) -> None:
    made = begin(tmp_path / "cache")
    commit(made, numbered_keys(4), np.full((4, 4), 1, np.float32))
    commit(made, numbered_keys(4, 2), np.full((4, 4), 2, np.float32))
    table = Table(made.folder)
    assert table.read().shape == (6, 4)
    index = torch.from_numpy(table.row_index(table.keys))
    assert torch.equal(table.read()[index], table.rows([key.tobytes() for key in table.keys]))


# ---------------------------------------------------------------- the one door


def zeroed(path: Path, record: ShardRecord) -> None:
    """Zeros in place of a shard's rows, as a disk that lost a write leaves them."""
    array = record.arrays["rows"]
    with path.open("r+b") as file:
        file.seek(array.offset)
        file.write(bytes(array.bytes))


READS: dict[str, Callable[[Table, Path], object]] = {
    "tensor": lambda table, _: table.tensor(),
    "read": lambda table, _: table.read(),
    "mapped": lambda table, _: table.mapped(0),
    "one row": lambda table, _: table[table.keys[0].tobytes()],
    "rows": lambda table, _: table.rows([key.tobytes() for key in table.keys[:2]]),
    "npy": lambda table, folder: export_table(table, "npy", folder),
    "parquet": lambda table, folder: export_table(table, "parquet", folder),
    "safetensors": lambda table, folder: export_table(table, "safetensors", folder),
    "copy": lambda table, folder: copy_table(table, create_cache(folder), None),
    "convert": lambda table, folder: copy_table(table, create_cache(folder), "zarr"),
    "training, mapped": lambda table, _: MappedRows(table).index_select(0, torch.tensor([1])),
    "training, windows": lambda table, _: MappedRows(table).read(
        [Run(0, 0, 2)], torch.empty(2, 4, dtype=torch.float16)
    ),
}


REFUSED_RAGGED = {"tensor", "read"}


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("read", READS)
def test_no_reader_gives_bytes_that_were_changed(tmp_path: Path, read: str, ragged: bool) -> None:
    made = begin(tmp_path / "cache", ragged=ragged)
    values = [np.ones((2, 4)), np.ones((1, 4))] if ragged else np.ones((2, 4))
    record = commit(made, numbered_keys(2), values)
    table = Table(made.folder)
    if ragged and read in REFUSED_RAGGED:
        return
    READS[read](Table(made.folder), tmp_path / "sound")
    zeroed(made.folder / record.path("rows"), record)
    with pytest.raises(DamagedError, match=r"differ.*(--repair|mend it first)"):
        READS[read](table, tmp_path / "damaged")


def test_what_was_not_asked_for_is_not_checked(table: Table) -> None:
    """One row of a large shard costs a block, not the shard."""
    path, place = place_of(table, BLOCK_BYTES + 5)
    flip(path, place)
    large = int(np.argmax([record.rows for record in table.shards]))
    keys = table.shards[large].keys
    assert torch.equal(table[keys[0].tobytes()], table.stored(large).between(0, 1)[0])
    with pytest.raises(DamagedError, match="differ from their checksum"):
        table[keys[-1].tobytes()]


def test_a_row_on_the_edge_of_two_blocks_needs_both(tmp_path: Path) -> None:
    width = BLOCK_BYTES // 2 // 3 * 2  # two thirds of a block of float16
    for damaged in (0, 1):
        made = begin(tmp_path / str(damaged), row_shape=(width,))
        record = commit(made, numbered_keys(3), np.ones((3, width)))
        path = made.folder / record.path("rows")
        flip(path, record.arrays["rows"].offset + damaged * BLOCK_BYTES)
        for row, blocks in ((0, {0}), (1, {0, 1}), (2, {1})):
            reader = Table(made.folder).stored(0)
            if damaged in blocks:
                with pytest.raises(DamagedError):
                    reader.rows(torch.tensor([row]))
            else:
                assert bool((reader.rows(torch.tensor([row])) == 1).all())


def test_mapping_keeps_no_file_open(tmp_path: Path) -> None:
    """A table of more shards than a process may have files."""
    made = begin(tmp_path / "cache")
    for number in range(5):
        commit(made, numbered_keys(2, 2 * number), np.ones((2, 4)))
    table = Table(made.folder)
    before = len(os.listdir("/proc/self/fd"))
    kept = [table.mapped(number) for number in range(5)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert all(bool((rows == 1).all()) for rows in kept)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_shortage_is_no_damage(
    table: Table, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Nothing is known of a file that could not be opened for want of handles or memory."""

    def short(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", short)
    monkeypatch.setattr("builtins.open", short)
    for read in (
        table.read,
        lambda: list(check_files(table.folder, table.shards[0], content=True)),
    ):
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            read()
        assert caught.value.errno == number


def test_bytes_come_through_one_door() -> None:
    """Nothing else in the cache or in training maps a file or reads at an offset."""
    doors = {"mmap", "memmap", "fromfile", "pread", "preadv", "torch.from_file"}
    found = set()
    root = Path(__file__).parent.parent
    for path in (*root.glob("vqa_cache/**/*.py"), *root.glob("train/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute | ast.Name) and path.name != "foreign.py":
                name = ast.unparse(node)  # foreign.py reads other programs' files
                if {name, name.rpartition(".")[2]} & doors:
                    found.add(str(path.relative_to(root)))
    assert found == {"vqa_cache/reading.py"}
