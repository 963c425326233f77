"""Shards open with h5py, zarr and xarray, alone, and give the rows that the table gives."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import xarray
import zarr
from conftest import begin, commit, numbered_keys, stored

from vqa_cache.arrays import read_texts
from vqa_cache.containers import ArrayLayout, lay_out
from vqa_cache.table import Table

CONTAINERS = ("hdf5", "zarr")
DTYPES = ("float16", "float32", "bfloat16")
TEXTS = ["is it red?", "", "größer?"]


def values(shape: tuple[int, ...]) -> np.ndarray:
    """Floats that every stored type holds exactly."""
    return np.random.default_rng(1).integers(-100, 100, shape).astype(np.float32)


def one_shard(root: Path, shape: tuple[int, ...] = (4,), **how: Any) -> tuple[Table, Path, Any]:
    """A table of one shard with three rows, the shard and its commit record."""
    table = begin(root, row_shape=shape, **how)
    items = TEXTS if table.modality == "text" else numbered_keys(3)
    record = commit(table, items, values((3, *shape)))
    [shard] = (table.folder / "shards").iterdir()
    return table, shard, record


def as_float(array: np.ndarray, dtype: str) -> np.ndarray:
    """What a reader without this project makes of an array: bfloat16 comes as uint16."""
    if dtype == "bfloat16" and array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(array, dtype=np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4,), (4, 5), (2, 3, 4)])
def test_h5py_alone(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    table, shard, _ = one_shard(tmp_path / "cache", shape, dtype=dtype)
    with h5py.File(shard) as file:
        rows = file["rows"]
        np.testing.assert_array_equal(as_float(rows[...], dtype), values((3, *shape)))
        assert rows.dtype == ("float32" if dtype == "bfloat16" else dtype)
        np.testing.assert_array_equal(file["keys"][...], table.keys)
        for name in ("rows", "keys"):
            data = file[name]
            assert data.chunks is data.compression is None
            assert data.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
            assert data.id.get_create_plist().get_nfilters() == 0
            assert data.id.get_offset() % 4096 == 0
        labels = [dimension[0].name.removeprefix("/") for dimension in rows.dims]
    assert labels[0] == "row"
    assert labels[-1] == "feature"
    if len(shape) == 2:
        assert labels == ["row", "token", "feature"]
    assert shard.read_bytes()[8] <= 3  # superblock of HDF5 1.10 at most


@pytest.mark.parametrize("dtype", DTYPES)
def test_zarr_alone(tmp_path: Path, dtype: str) -> None:
    table, shard, _ = one_shard(tmp_path / "cache", (4, 5), dtype=dtype, container="zarr")
    group = zarr.open_group(shard, mode="r")
    rows = group["rows"]
    assert isinstance(rows, zarr.Array)
    np.testing.assert_array_equal(as_float(rows[...], dtype), values((3, 4, 5)))
    assert rows.metadata.zarr_format == 3
    assert rows.metadata.dimension_names == ("row", "token", "feature")
    assert rows.chunks == rows.shape
    assert [type(codec).__name__ for codec in rows.metadata.codecs] == ["BytesCodec"]
    assert dict(rows.attrs) == ({"vqa_cache_dtype": dtype} if dtype == "bfloat16" else {})
    np.testing.assert_array_equal(group["keys"][...], table.keys)
    assert (shard / "rows/c/0/0/0").read_bytes() == stored(values((3, 4, 5)), dtype).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_xarray_alone(tmp_path: Path, container: str, dtype: str) -> None:
    table, shard, _ = one_shard(
        tmp_path / "cache", (4, 5), dtype=dtype, container=container, modality="text"
    )
    if container == "hdf5":
        data = xarray.open_dataset(shard, engine="h5netcdf", decode_cf=False)
    else:
        data = xarray.open_zarr(shard, consolidated=False, decode_cf=False)
    with data:
        assert data["rows"].dims == ("row", "token", "feature")
        assert data["keys"].dims == ("row", "key_byte")
        np.testing.assert_array_equal(as_float(data["rows"].values, dtype), values((3, 4, 5)))
        np.testing.assert_array_equal(data["keys"].values, table.keys)
        texts = read_texts(data["texts"].values, data["text_offsets"].values)
    assert texts == TEXTS == table.texts()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_the_record_says_where_the_bytes_are(tmp_path: Path, container: str, dtype: str) -> None:
    table, _, record = one_shard(
        tmp_path / "cache", dtype=dtype, container=container, modality="text"
    )
    found = {}
    for name, array in record.arrays.items():
        file = record.files[array.file]
        content = (table.folder / file.path).read_bytes()
        assert len(content) == file.bytes
        found[name] = content[array.offset : array.offset + array.bytes]
    assert found["rows"] == stored(values((3, 4)), dtype).tobytes()
    assert found["keys"] == table.keys.tobytes()
    assert found["texts"] == "".join(TEXTS).encode()
    assert found["text_offsets"] == np.array([0, 10, 10, 19], "<i8").tobytes()
    assert record.arrays["rows"].shape == (3, 4)
    assert record.arrays["rows"].dtype == dtype
    tensor = Table(table.folder).tensor()
    assert str(tensor.dtype) == f"torch.{dtype}"
    np.testing.assert_array_equal(tensor.float().numpy(), values((3, 4)))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_rows_are_the_same_bytes_at_another_time_and_place(tmp_path: Path) -> None:
    how = [
        {"container": container, "modality": modality}
        for container in CONTAINERS
        for modality in ("image", "text")
    ]
    for number, settings in enumerate(how):
        one_shard(tmp_path / "first" / str(number), **settings)
    time.sleep(1.1)  # HDF5 would note times in seconds
    for number, settings in enumerate(how):
        one_shard(tmp_path / "a second, longer place" / str(number), **settings)
    first = digests(tmp_path / "first")
    assert sum("/shards/" in name for name in first) > 10
    assert first == digests(tmp_path / "a second, longer place")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_shard_without_rows(tmp_path: Path, container: str, modality: str) -> None:
    table = begin(tmp_path / "cache", container=container, modality=modality)
    items: list[Any] = TEXTS if modality == "text" else numbered_keys(3)
    commit(table, items, np.zeros((3, 4)), failed=dict.fromkeys(range(3), "no"))
    [shard] = (table.folder / "shards").iterdir()
    if container == "hdf5":
        with h5py.File(shard) as file:
            assert file["rows"].shape == (0, 4)
    else:
        assert zarr.open_group(shard, mode="r")["rows"].shape == (0, 4)
    fresh = Table(table.folder)
    assert len(fresh) == 0
    assert fresh.tensor().shape == (0, 4)
    assert fresh.rows([]).shape == (0, 4)
    assert len(fresh.failed) == 3
    np.testing.assert_array_equal(fresh.row_index(np.zeros((2, 16), np.uint8)), [-1, -1])


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_is_mapped_cannot_harm_the_file(tmp_path: Path, container: str) -> None:
    table, shard, _ = one_shard(tmp_path / "cache", container=container)
    before = digests(shard) if shard.is_dir() else {"": shard.read_bytes().hex()}
    tensor = Table(table.folder).tensor()
    tensor[0] = 77
    assert (digests(shard) if shard.is_dir() else {"": shard.read_bytes().hex()}) == before
    assert Table(table.folder).tensor()[0, 0] != 77


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", ["with space", "größe#1%20&x=[y]", "a::b"])
def test_folders_with_odd_names(tmp_path: Path, container: str, name: str) -> None:
    table, shard, _ = one_shard(tmp_path / name, container=container)
    assert shard.exists()
    assert torch.equal(
        Table(table.folder).tensor(), torch.from_numpy(stored(values((3, 4)), "float16"))
    )


def test_an_array_larger_than_memory_pages_costs_none_before_it_is_written(tmp_path: Path) -> None:
    layout = ArrayLayout("rows", "float16", (1 << 20, 1 << 10), ("row", "feature"))
    for container in CONTAINERS:
        path = tmp_path / container
        extent = lay_out(path, container, [layout])["rows"]
        file = path / extent.file if extent.file else path
        assert file.stat().st_size >= extent.offset + layout.bytes == extent.offset + 2**31
        assert file.stat().st_blocks * 512 < 1 << 20  # not filled
        shutil.rmtree(path) if path.is_dir() else path.unlink()
