"""Reading rows that other programs wrote: one function a format, nothing pickled is ever loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from vqa_cache.errors import CacheError

Array = npt.NDArray[Any]
FEATURES, BOXES = "features", "boxes"
_FEATURE_NAMES = ("image_features", "features", "x")
_BOX_NAMES = ("image_bb", "boxes", "bbox")
_ID_NAMES = ("ids", "indices", "image_ids")
_TENSOR_NAMES = ("embeddings", "features")
_TENSOR_ID_NAMES = ("ids", "texts", "paths")


@dataclass(frozen=True)
class Rows:
    """Rows of one array of a file, read one at a time.

    Attributes:
        where: the file, for messages.
        ids: what each row is of, as the file or `--ids` says.
        read: row i as an array.
    """

    where: str
    ids: Sequence[str]
    read: Callable[[int], Array]


Found = Mapping[str, Rows]  # tap -> rows
Ids = list[str] | None


@contextmanager
def one_line(path: Path | str, expected: str) -> Iterator[None]:
    """Turn whatever a broken file makes a library raise into one line that names it: each library
    has errors of its own (zlib, LZMA, zip, pickle, struct, HDF5), so all of them are meant."""
    try:
        yield
    except CacheError:
        raise
    except Exception as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        why = _first_line(told) or type(error).__name__
        raise CacheError(f"{path}: cannot be read as {expected} ({why})") from error


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def read_ids(path: Path, column: str | None) -> list[str]:
    """What the rows of a file are of: a JSON list, or a JSON object id -> row; a column of a
    parquet file; otherwise one id a line."""
    with one_line(path, "a list of ids"):
        if path.suffix == ".parquet":
            return [str(value) for value in parquet_column(path, column)]
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix != ".json":
            return text.splitlines()
        found = json.loads(text)
        if isinstance(found, dict):
            if sorted(found.values()) != list(range(len(found))):
                raise CacheError(f"{path}: expected an object from id to row, rows 0, 1, 2, ...")
            return sorted(found, key=found.__getitem__)
        if not isinstance(found, list):
            raise CacheError(f"{path}: holds a {type(found).__name__}, expected a list of ids")
        return [str(value) for value in found]


def parquet_column(path: Path, column: str | None) -> list[Any]:
    """The values of a column. Raises CacheError without pyarrow or such a column."""
    parquet = pyarrow_parquet()
    with parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if column not in names:
            asked = "no --column named" if column is None else f"no column {column!r}"
            raise CacheError(f"{path}: {asked}; it has: {', '.join(names)}")
        values: list[Any] = file.read([column]).column(column).to_pylist()
        return values


def pyarrow_parquet() -> Any:
    """`pyarrow.parquet`. Raises CacheError where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise CacheError(
            "parquet needs pyarrow, which is not installed: pip install 'vqa-cache[parquet]'"
        ) from error
    return pyarrow.parquet


def open_hdf5(path: Path, ids: Ids) -> Found:
    """Bottom-up attention: `image_features` or `features` [n, regions, d] (or [n, d, regions]) with
    `image_bb` or `boxes`; with `pos_boxes` [n, 2], image i has regions pos_boxes[i, 0] to
    pos_boxes[i, 1] of [all regions, d]. Ids in `ids`, `indices` or `image_ids`."""
    with one_line(path, "bottom-up HDF5"):
        file = h5py.File(path, "r")
        features = _dataset(path, file, _name_in(path, file, _FEATURE_NAMES))
        box_name = next((name for name in _BOX_NAMES if name in file), None)
        boxes = None if box_name is None else _dataset(path, file, box_name)
        spans = None
        if "pos_boxes" in file:
            spans = _dataset(path, file, "pos_boxes")[...].astype(np.int64).tolist()
        stored = next((name for name in _ID_NAMES if name in file), None)
        if ids is None and stored is not None:
            values = _dataset(path, file, stored)[...].reshape(-1).tolist()
            ids = [v.decode() if isinstance(v, bytes) else str(v) for v in values]
        count = len(features) if spans is None else len(spans)
        if spans is not None and not all(0 <= a <= b <= len(features) for a, b in spans):
            raise CacheError(f"{path}: pos_boxes point outside its {len(features):,} regions")
        if boxes is not None and len(boxes) != len(features):
            raise CacheError(f"{path}: {len(boxes):,} boxes for {len(features):,} features")
    ids = _matching(path, ids, count)

    def rows(data: h5py.Dataset, number: int) -> Array:
        with one_line(path, "bottom-up HDF5"):
            got: Array = data[number] if spans is None else data[slice(*spans[number])]
            return got

    def read_features(number: int) -> Array:
        found = rows(features, number)
        with one_line(path, "bottom-up HDF5"):
            return found if boxes is None else _regions_first(path, found, rows(boxes, number))

    def read_boxes(number: int) -> Array:
        with one_line(path, "bottom-up HDF5"):
            return _boxes_last(rows(boxes, number))

    found = {FEATURES: Rows(str(path), ids, read_features)}
    return found if boxes is None else {**found, BOXES: Rows(str(path), ids, read_boxes)}


def _dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset whose values are all in this file. Raises CacheError: it is none, or lies in other
    files, which may be anybody's, and of which a missing one reads as zeros."""
    hard = isinstance(file.get(name, getlink=True), h5py.HardLink)
    found = file[name] if hard else None
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
        raise CacheError(
            f"{path}: {name} is no array inside this file (a group, or a link into another file); "
            "copy its values into one file: h5repack, or h5py"
        )
    return found


def open_npz(path: Path, ids: Ids) -> Found:
    """A folder with one npz an image, named by its id: `features` or `x` [regions, d] (or [d,
    regions]), perhaps `boxes` or `bbox` [regions, 4] and `mask` [regions], true where a region is
    real: the others are dropped."""
    paths = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not paths or not paths[0].exists():
        raise CacheError(f"{path}: no npz file here; expected a folder with one an image")
    ids = _matching(path, ids or [one.stem for one in paths], len(paths))
    with one_line(paths[0], "regions in npz"), np.load(paths[0], allow_pickle=False) as file:
        has_boxes = any(name in file for name in _BOX_NAMES)

    def read(number: int, tap: str) -> Array:
        one = paths[number]
        with one_line(one, "regions in npz"), np.load(one, allow_pickle=False) as file:
            rows: Array = file[_name_in(one, file, _FEATURE_NAMES)]
            if has_boxes:
                boxes = _boxes_last(file[_name_in(one, file, _BOX_NAMES)])
                rows = boxes if tap == BOXES else _regions_first(one, rows, boxes)
            if "mask" not in file:
                return rows
            mask = np.asarray(file["mask"]).astype(bool)
            if mask.shape != rows.shape[:1]:
                raise CacheError(f"{one}: mask {mask.shape}, expected {rows.shape[:1]}")
            return np.asarray(rows[mask])

    taps = (FEATURES, BOXES) if has_boxes else (FEATURES,)
    return {tap: Rows(str(path), ids, partial(read, tap=tap)) for tap in taps}


def open_npy(path: Path, ids: Ids) -> Found:
    """An array [n, ...], mapped. With an `offsets.npy` [n + 1] beside it, row i is
    array[offsets[i]:offsets[i + 1]]."""
    beside = path.with_name("offsets.npy")
    with one_line(path, "an npy array"):
        data = np.load(path, mmap_mode="r", allow_pickle=False)
        if not beside.exists():
            return {FEATURES: Rows(str(path), _matching(path, ids, len(data)), data.__getitem__)}
        edges = np.load(beside, allow_pickle=False).tolist()
        if edges[0] != 0 or edges[-1] != len(data) or sorted(edges) != edges:
            raise CacheError(f"{beside}: does not cut the {len(data)} tokens of {path} into rows")

    def read(number: int) -> Array:
        return np.asarray(data[edges[number] : edges[number + 1]])

    return {FEATURES: Rows(str(path), _matching(path, ids, len(edges) - 1), read)}


def open_pt(path: Path, ids: Ids) -> Found:
    """What `torch.save` wrote, of tensors alone: one [n, ...], a list of rows, an object id -> row,
    or an object with `embeddings` (or `features`) and perhaps `ids` (or `texts`, `paths`)."""
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CacheError(f"{path}: cannot be read as tensors alone ({error.strerror})") from error
    except Exception as error:  # torch's text would tell how to load a pickle all the same
        raise CacheError(
            f"{path}: cannot be read as tensors alone: it holds more, or is no whole file of "
            "torch.save; save it again as tensors, lists and dicts of them"
        ) from error
    if isinstance(found, dict):
        name = next((name for name in _TENSOR_NAMES if name in found), None)
        if name is None:
            with one_line(path, "tensors with their ids"):
                ids, found = ids or [str(key) for key in found], list(found.values())
        else:
            named = next((found[key] for key in _TENSOR_ID_NAMES if key in found), None)
            with one_line(path, "tensors with their ids"):
                ids = ids or (None if named is None else [str(_plain(key)) for key in named])
            found = found[name]
    is_rows = isinstance(found, torch.Tensor) and found.ndim > 1 and found.layout == torch.strided
    if not (is_rows or (isinstance(found, list) and all(map(torch.is_tensor, found)))):
        raise CacheError(
            f"{path}: expected a tensor [n, ...], a list of tensors or a dict from id to tensor"
        )
    rows = found

    def read(number: int) -> Array:
        with one_line(path, "tensors alone"):
            row = rows[number].detach()
            return np.asarray((row.float() if row.dtype == torch.bfloat16 else row).numpy())

    return {FEATURES: Rows(str(path), _matching(path, ids, len(rows)), read)}


FORMATS: dict[str, Callable[[Path, Ids], Found]] = {
    "hdf5": open_hdf5,
    "npz": open_npz,
    "npy": open_npy,
    "pt": open_pt,
}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _matching(path: Path, ids: Ids, count: int) -> list[str]:
    if ids is None:
        raise CacheError(f"{path}: does not say what its {count:,} rows are of; give --ids FILE")
    if len(ids) != count:
        raise CacheError(f"{path}: {count:,} rows, but {len(ids):,} ids")
    return ids


def _name_in(path: Path, file: Any, names: Sequence[str]) -> str:
    for name in names:
        if name in file:
            return name
    raise CacheError(f"{path}: none of {', '.join(names)} in it; it has: {', '.join(file)}")


def _boxes_last(boxes: Array) -> Array:
    """Boxes [regions, 4], given so or as [4, regions]."""
    if boxes.ndim != 2:
        raise ValueError(f"boxes are {list(boxes.shape)}, expected [regions, 4]")
    return boxes if boxes.shape[-1] == 4 or boxes.shape[0] != 4 else boxes.T


def _regions_first(path: Path, features: Array, boxes: Array) -> Array:
    """Features [regions, d], given so or as [d, regions]. Raises CacheError where neither has as
    many regions as there are boxes."""
    regions = len(_boxes_last(boxes))
    if features.ndim == 2 and features.shape[0] != regions == features.shape[1]:
        return features.T
    if features.ndim == 0 or len(features) != regions:
        raise CacheError(f"{path}: features {list(features.shape)} for {regions} boxes")
    return features
