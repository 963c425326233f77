"""Ragged tables: rows with a varying number of tokens, in HDF5 and Zarr."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import xarray
import zarr
from click.testing import CliRunner
from conftest import begin, commit, numbered_keys, stored
from hypothesis import given, settings
from hypothesis import strategies as st

import vqa_cache
from vqa_cache.__main__ import main
from vqa_cache.arrays import file_digest
from vqa_cache.errors import CacheError, DamagedError, KeyNotFoundError
from vqa_cache.keys import text_key
from vqa_cache.records.record import encode_record
from vqa_cache.records.shard import ShardRecord
from vqa_cache.shard import ShardWriter, shard_name
from vqa_cache.table import Table
from vqa_cache.tools.verify import verify

CONTAINERS = ("hdf5", "zarr")
LENGTHS = [3, 0, 1, 5]
KEYS = numbered_keys(4)
TEXTS = ["is it red?", "", "größer?", "how many are there?"]


def tokens(lengths: list[int], shape: tuple[int, ...] = (4,)) -> list[np.ndarray]:
    """Rows that every stored type holds exactly."""
    draw = np.random.default_rng(len(lengths))
    return [draw.integers(-100, 100, (n, *shape)).astype(np.float32) for n in lengths]


def writer(table: Table, keys: list[bytes] = KEYS) -> ShardWriter:
    return ShardWriter(table.folder, table.record, keys, None, shard_name(table.id, keys))


def problems(table: Table) -> list[str]:
    return list(verify(vqa_cache.Cache(table.folder.parents[4])))


def shard_files(table: Table) -> list[bytes]:
    paths = sorted((table.folder / "shards").rglob("*"))
    return [path.read_bytes() for path in paths if path.is_file()]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_rows_come_back(tmp_path: Path, container: str, dtype: str) -> None:
    made = begin(tmp_path / "cache", ragged=True, container=container, dtype=dtype)
    values = tokens(LENGTHS)
    record = commit(made, KEYS, values)
    table = Table(made.folder)
    assert (len(table), record.rows, table.lengths.tolist()) == (4, 4, LENGTHS)
    for key, row in zip(KEYS, values, strict=True):
        assert table[key].dtype == getattr(torch, dtype)
        assert table[key].shape == row.shape
        assert table[key].float().tolist() == row.tolist()
    joined, offsets = table.ragged_rows([KEYS[3], KEYS[1], KEYS[0].hex(), KEYS[3]])
    assert offsets.tolist() == [0, 5, 5, 8, 13]
    assert joined.float().tolist() == np.concatenate([values[n] for n in (3, 0, 3)]).tolist()
    padded = table.rows([KEYS[2], KEYS[0]])
    assert padded.shape == (2, 3, 4)
    assert padded[0].float().tolist() == [*values[2].tolist(), [0] * 4, [0] * 4]
    assert padded[1].float().tolist() == values[0].tolist()
    assert table.rows([]).shape == (0, 1, 4)
    assert problems(table) == []


@pytest.mark.parametrize("container", CONTAINERS)
def test_shards_are_mapped_one_by_one(tmp_path: Path, container: str) -> None:
    made = begin(tmp_path / "cache", ragged=True, container=container, row_shape=(2, 3))
    values = tokens(LENGTHS + LENGTHS, (2, 3))
    commit(made, KEYS, values[:4])
    commit(made, numbered_keys(4, 4), values[4:])
    table = Table(made.folder)
    shard, row = table.places
    for number in range(2):
        mapped, edges = table.mapped(number), table.offsets(number)
        assert mapped.shape == (9, 2, 3)
        assert edges.dtype == np.int64
        for index in np.flatnonzero(shard == number):
            part = mapped[edges[row[index]] : edges[row[index] + 1]]
            assert torch.equal(part, table[table.keys[index].tobytes()])
    for key, value in zip(KEYS + numbered_keys(4, 4), values, strict=True):
        assert table[key].tolist() == value.tolist()


def test_a_key_in_two_records_comes_from_the_smaller_name(tmp_path: Path) -> None:
    made = begin(tmp_path / "cache", ragged=True)
    one = commit(made, KEYS[:2], [np.full((2, 4), 1.0), np.full((1, 4), 1.0)])
    two = commit(made, KEYS[1:], [np.full((n, 4), 2.0) for n in (4, 1, 2)])
    wins = (1, [1.0]) if one.shard < two.shard else (4, [2.0])
    table = Table(made.folder)
    assert len(table) == len(table.lengths) == 4
    assert (len(table[KEYS[1]]), table[KEYS[1]][:, 0].unique().tolist()) == wins


def test_one_tensor_of_all_rows_is_refused(tmp_path: Path) -> None:
    table = begin(tmp_path / "cache", ragged=True)
    with pytest.raises(CacheError, match=r"is ragged .* take one with tap=cls, mean or grid="):
        table.tensor()
    with pytest.raises(KeyNotFoundError, match="no row for"):
        table.ragged_rows(KEYS)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_programs_open_a_shard(tmp_path: Path, container: str, dtype: str) -> None:
    table = begin(
        tmp_path / "cache", ragged=True, container=container, dtype=dtype, modality="text"
    )
    values = tokens(LENGTHS)
    commit(table, TEXTS, values)
    [shard] = (table.folder / "shards").iterdir()
    if container == "hdf5":
        data = xarray.open_dataset(shard, engine="h5netcdf", decode_cf=False)
        with h5py.File(shard) as file:
            rows, edges = file["rows"][...], file["offsets"][...]
            assert file["rows"].id.get_offset() % 4096 == 0
    else:
        data = xarray.open_zarr(shard, consolidated=False, decode_cf=False)
        group: Any = zarr.open_group(shard, mode="r")
        rows, edges = group["rows"][...], group["offsets"][...]
    with data:
        assert data["rows"].dims == ("token_row", "feature")
        assert data["offsets"].dims == data["text_offsets"].dims == ("row_edge",)
        np.testing.assert_array_equal(data["offsets"].values, edges)
    if rows.dtype == np.uint16:
        rows = (rows.astype(np.uint32) << 16).view(np.float32)
    assert edges.tolist() == [0, 3, 3, 4, 9]
    assert edges.dtype == np.dtype("int64")
    np.testing.assert_array_equal(rows, np.concatenate(values))
    assert Table(table.folder).texts() == TEXTS
    assert Table(table.folder)["größer?"].tolist() == values[2].tolist()


@settings(max_examples=25)
@given(st.permutations(range(4)), st.sets(st.integers(0, 3)), st.sampled_from(CONTAINERS))
def test_order_of_arrival_and_failures_leave_no_trace(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], failed: set[int], container: str
) -> None:
    root = tmp_path_factory.mktemp("ragged")
    values = tokens(LENGTHS)
    made = begin(root / "any", ragged=True, container=container)
    one = writer(made)
    for batch in (order[:2], order[2:]):
        rows = stored(np.concatenate([values[n] for n in batch]), "float16")
        one.write(batch, rows, [LENGTHS[n] for n in batch])
    one.failed.update(dict.fromkeys(failed, "bad"))
    record = one.commit()
    kept = [n for n in range(4) if n not in failed]
    assert record.rows == len(kept)
    table = Table(made.folder)
    assert table.lengths.tolist() == [LENGTHS[n] for n in kept]
    assert set(table.failed) == {KEYS[n] for n in failed}
    assert problems(table) == []
    plain = begin(root / "plain", ragged=True, container=container)
    commit(plain, [KEYS[n] for n in kept], [values[n] for n in kept] or np.zeros((0, 4)))
    assert shard_files(plain) == shard_files(made)


@pytest.mark.parametrize(
    ("rows", "lengths"),
    [
        (np.zeros((3, 4), "float16"), None),
        (np.zeros((3, 4), "float16"), [1, 1]),
        (np.zeros((3, 4), "float16"), [3]),
        (np.zeros((3, 5), "float16"), [1, 2]),
        (np.zeros((3, 4), "float32"), [1, 2]),
    ],
)
def test_rows_of_another_kind_are_refused(
    tmp_path: Path, rows: np.ndarray, lengths: list[int] | None
) -> None:
    table = begin(tmp_path / "cache", ragged=True)
    with pytest.raises(ValueError, match=r"rows .*, expected float16\[.* length for each of 2"):
        writer(table).write([0, 1], rows, lengths)
    dense = begin(tmp_path / "dense")
    with pytest.raises(ValueError, match=r"expected float16\[2, 4\]$"):
        writer(dense).write([0, 1], np.zeros((2, 4), "float16"), [1, 1])


@pytest.mark.parametrize("container", CONTAINERS)
def test_repair_writes_the_same_bytes_again(tmp_path: Path, container: str) -> None:
    table = begin(tmp_path / "cache", ragged=True, container=container)
    values = tokens(LENGTHS)
    record = commit(table, KEYS, values, failed={2: "bad"})
    before = shard_files(table)
    broken = table.folder / record.path("offsets")
    broken.write_bytes(broken.read_bytes()[:-3])
    assert len(problems(table)) == 1
    with pytest.raises(DamagedError, match=r"offsets|bytes, expected"):
        Table(table.folder).rows(KEYS[:1])
    again = writer(table)
    again.write([0, 1, 2, 3], stored(np.concatenate(values), "float16"), LENGTHS)
    again.failed[2] = "bad"
    again.repair(record)
    assert shard_files(table) == before
    assert problems(table) == []


def test_a_crash_at_any_step_leaves_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = tokens(LENGTHS)
    table = begin(tmp_path / "cache", ragged=True, container="zarr")
    sync = os.fsync
    for step in range(1000):
        left = [step]

        def dying(descriptor: int, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", dying)
        try:
            commit(table, KEYS, values)
        except KeyboardInterrupt:
            assert len(Table(table.folder)) in (0, 4)
            continue
        finally:
            monkeypatch.undo()
        break
    assert step > 10
    assert Table(table.folder).lengths.tolist() == LENGTHS
    assert problems(table) == []


@pytest.mark.parametrize("edges", [[0, 3, 2, 4, 9], [1, 3, 3, 4, 9], [0, 3, 3, 4, 8]])
def test_verify_finds_offsets_that_cut_wrongly(tmp_path: Path, edges: list[int]) -> None:
    """Written so by another program: digests are right, the cut is not."""
    table = begin(tmp_path / "cache", ragged=True, container="zarr")
    record: ShardRecord = commit(table, KEYS, tokens(LENGTHS))
    array = record.arrays["offsets"]
    path = table.folder / record.path("offsets")
    path.write_bytes(np.array(edges, "<i8").tobytes())
    from vqa_cache.arrays import block_digests

    files = list(record.files)
    files[array.file] = replace(files[array.file], xxh3_128=file_digest(path))
    offsets = replace(array, blocks=tuple(block_digests(path, 0, 40)))
    arrays = {**record.arrays, "offsets": offsets}
    where = table.folder / "records" / f"{record.shard}.json"
    where.write_bytes(encode_record(replace(record, files=tuple(files), arrays=arrays)))
    assert problems(table) == [f"{where}: its offsets do not cut 9 tokens into 4 rows"]


def test_a_ragged_table_tells_its_size(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    made = begin(root, ragged=True, modality="text")
    commit(made, TEXTS, tokens(LENGTHS))
    table = Table(made.folder)
    assert repr(table) == f"<Table {table.name}: 4 rows [*, 4]>"
    assert table.row_index(np.frombuffer(text_key(TEXTS[0]), np.uint8)[None]).tolist() == [0]
    listed = CliRunner().invoke(main, ["ls", str(root)]).stdout
    assert "*x4" in listed
    told = json.loads(CliRunner().invoke(main, ["info", "--cache", str(root), "--json"]).stdout)[0]
    assert (told["ragged"], told["tokens"], told["bytes"], told["rows"]) == (True, 9, 72, 4)
