"""HDF5 and Zarr shards: laying out raw, contiguous arrays and saying where they are.

A container is laid out empty, with every array's place known; the bytes are then written at those
places with ordinary file writes. So both containers share one writer and one reader, a shard
needs no memory of its own size, and h5py, zarr and xarray still open the result.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from vqa_cache.dtypes import item_bytes
from vqa_cache.errors import CacheError

Container = Literal["hdf5", "zarr"]
CONTAINERS: tuple[Container, ...] = ("hdf5", "zarr")
SUFFIX: dict[str, str] = {"hdf5": ".h5", "zarr": ".zarr"}
ALIGNMENT = 4096
_NO_COORDINATE = "This is a netCDF dimension but not a netCDF variable.{size:>10d}"


@dataclass(frozen=True)
class ArrayLayout:
    """An array to be: its stored type ("float16", "bfloat16", "uint8", ...), shape and the name
    of each dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    dimensions: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * item_bytes(self.dtype)


@dataclass(frozen=True)
class Extent:
    """Where an array's bytes are: a file, relative to the container's parent, and an offset."""

    file: str
    offset: int


def lay_out(path: Path, container: str, arrays: list[ArrayLayout]) -> dict[str, Extent]:
    """Create an empty container at `path`; array name -> extent (file relative to `path`, "" for
    the container being one file). Raises OSError that names the file (a full disk, say)."""
    if container != "hdf5":
        return _lay_out_zarr(path, arrays)
    try:
        return _lay_out_hdf5(path, arrays)
    except (OSError, RuntimeError) as error:  # HDF5 tells a full disk as either, in many lines
        told = " ".join(str(error).split())
        found = re.search(r"errno = (\d+)", told)
        number = getattr(error, "errno", None) or (int(found[1]) if found else None)
        if number is None:
            raise CacheError(f"{path}: HDF5 cannot write it ({told})") from error
        raise OSError(number, os.strerror(number), str(path)) from error


def _lay_out_hdf5(path: Path, arrays: list[ArrayLayout]) -> dict[str, Extent]:
    extents = {}
    with h5py.File(
        path,
        "w",
        libver=("v110", "v110"),
        alignment_threshold=1,
        alignment_interval=ALIGNMENT,
    ) as file:
        scales: dict[str, h5py.Dataset] = {}
        for array in arrays:
            data = _contiguous(file, array.name, array.shape, _hdf5_type(array.dtype), early=True)
            extents[array.name] = Extent("", data.id.get_offset() or 0)
            for axis, (name, size) in enumerate(zip(array.dimensions, array.shape, strict=True)):
                if name not in scales:
                    scale = _contiguous(file, name, (size,), h5py.h5t.STD_U8LE, early=False)
                    scale.make_scale(_NO_COORDINATE.format(size=size))
                    scales[name] = scale
                data.dims[axis].attach_scale(scales[name])
    return extents


def _contiguous(
    file: h5py.File, name: str, shape: tuple[int, ...], kind: Any, *, early: bool
) -> h5py.Dataset:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY if early else h5py.h5d.ALLOC_TIME_LATE)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)  # times would make equal shards differ
    space = h5py.h5s.create_simple(shape)
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, properties))


def _hdf5_type(dtype: str) -> Any:
    if dtype == "bfloat16":  # self-describing: h5py shows float32, the bytes stay two
        kind = h5py.h5t.IEEE_F16LE.copy()
        kind.set_fields(15, 7, 8, 0, 7)
        kind.set_ebias(127)
        return kind
    return h5py.h5t.py_create(np.dtype(dtype).newbyteorder("<"))


def _lay_out_zarr(path: Path, arrays: list[ArrayLayout]) -> dict[str, Extent]:
    import zarr  # here, so that training needs h5py alone

    group = zarr.create_group(path, zarr_format=3)
    extents = {}
    for array in arrays:
        attributes: dict[str, Any] = {}
        if array.dtype == "bfloat16":
            attributes["vqa_cache_dtype"] = "bfloat16"
        group.create_array(
            array.name,
            shape=array.shape,
            dtype="uint16" if array.dtype == "bfloat16" else array.dtype,
            chunks=tuple(max(size, 1) for size in array.shape),
            compressors=None,
            filters=None,
            dimension_names=array.dimensions,
            attributes=attributes,
        )
        chunk = "/".join([array.name, "c", *("0" for _ in array.shape)])
        if array.bytes:
            os.makedirs(os.path.dirname(path / chunk), exist_ok=True)
            with open(path / chunk, "wb") as file:
                file.truncate(array.bytes)
        extents[array.name] = Extent(chunk, 0)
    return extents
