"""Tables for other programs: npy, parquet, safetensors. One batch is in memory at a time."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from vqa_cache.arrays import text_arrays
from vqa_cache.dtypes import item_bytes, raw_rows
from vqa_cache.errors import CacheError
from vqa_cache.keys import canonical_json, unpack_keys
from vqa_cache.ragged import Whole
from vqa_cache.records.record import stamped
from vqa_cache.system.durable import Workspace, publish, write_file
from vqa_cache.table import Table
from vqa_cache.tools.foreign import pyarrow_parquet

_ROWS_AT_ONCE = 256
_WRITTEN = {
    "npy": ("rows.npy", "offsets.npy", "keys.txt", "texts.json", "table.json"),
    "parquet": ("rows.parquet",),
    "safetensors": ("rows.safetensors",),
}
_SAFETENSORS = {
    "float16": "F16",
    "float32": "F32",
    "bfloat16": "BF16",
    "uint8": "U8",
    "int64": "I64",
}


def export_table(table: Table, kind: str, folder: Path) -> list[Path]:
    """Write a table into a folder; the files written.

    Args:
        kind: one of EXPORTS.

    Raises:
        DamagedError: a shard is missing or too short.
        CacheError: parquet without pyarrow; a file of a name that would be written is there, which
            only whoever made it may delete.
    """
    for name in _WRITTEN[kind]:
        if os.path.lexists(folder / name):
            raise CacheError(
                f"{folder / name}: is there already; delete it, or name another folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    return EXPORTS[kind](table, folder)


def _batches(table: Table, *, exact: bool) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """First row of each batch and its rows [batch, *row_shape], or its tokens joined; bfloat16 as
    it is stored, or exactly as float32; int8 as float32."""
    keys = unpack_keys(table.keys)
    for start in range(0, len(keys), _ROWS_AT_ONCE):
        chosen = keys[start : start + _ROWS_AT_ONCE]
        rows = table.ragged_rows(chosen)[0] if table.ragged else table.rows(chosen)
        widened = rows.float() if exact and table.dtype == "bfloat16" else rows
        yield start, raw_rows(widened)


def _offsets(table: Table) -> Whole:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(table.lengths)])


def _shape(table: Table) -> tuple[int, ...]:
    return (int(table.lengths.sum()) if table.ragged else len(table), *table.row_shape)


def _widened(table: Table) -> str:
    """The type of rows where bfloat16 is unknown: float32 holds its values exactly."""
    return "float32" if table.dtype == "bfloat16" else _given_type(table)


def _given_type(table: Table) -> str:
    """The type of rows as the table gives them."""
    return "float32" if table.dtype == "int8" else table.dtype


def _write_npy(table: Table, folder: Path) -> list[Path]:
    """`rows.npy`, of a ragged table `offsets.npy`, `keys.txt` (one a line), of a text table
    `texts.json`, and `table.json`."""
    described = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(_widened(table))),
        "fortran_order": False,
        "shape": _shape(table),
    }

    def write_rows(file: BinaryIO) -> None:
        np.lib.format.write_array_header_1_0(file, described)
        for _, rows in _batches(table, exact=True):
            file.write(rows.data)

    written = [_stream(folder / "rows.npy", write_rows)]
    if table.ragged:
        edges = _offsets(table)
        written.append(_stream(folder / "offsets.npy", lambda file: np.save(file, edges)))
    texts = {"keys.txt": "".join(key.tobytes().hex() + "\n" for key in table.keys)}
    if table.modality == "text":
        texts["texts.json"] = json.dumps(table.texts(), ensure_ascii=False)
    texts["table.json"] = canonical_json(stamped(table.record)).decode()
    for name, text in texts.items():
        write_file(folder / name, text.encode())
    return written + [folder / name for name in texts]


def _write_parquet(table: Table, folder: Path) -> list[Path]:
    """`rows.parquet`: `key` (hex), of a text table `text`, and `row`, a flat list, whose shape
    is in the field's metadata."""
    parquet = pyarrow_parquet()
    import pyarrow as arrow

    value = arrow.from_numpy_dtype(np.dtype(_widened(table)))
    width = int(np.prod(table.row_shape))
    kind = arrow.list_(value) if table.ragged else arrow.list_(value, width)
    shape = json.dumps([*([-1] if table.ragged else []), *table.row_shape])
    fields = [arrow.field("key", arrow.string())]
    texts = table.texts() if table.modality == "text" else None
    if texts is not None:
        fields.append(arrow.field("text", arrow.string()))
    fields.append(arrow.field("row", kind, metadata={"shape": shape}))
    schema = arrow.schema(fields, metadata={"vqa_cache": canonical_json(stamped(table.record))})

    def write(file: BinaryIO) -> None:
        with parquet.ParquetWriter(file, schema) as writer:
            for start, rows in _batches(table, exact=True):
                stop = min(start + _ROWS_AT_ONCE, len(table))
                flat = arrow.array(rows.reshape(-1))
                columns = [arrow.array([key.tobytes().hex() for key in table.keys[start:stop]])]
                if texts is not None:
                    columns.append(arrow.array(texts[start:stop], arrow.string()))
                if table.ragged:
                    edges = np.concatenate([[0], np.cumsum(table.lengths[start:stop])]) * width
                    edges = edges.astype(np.int32)
                    columns.append(arrow.ListArray.from_arrays(edges, flat, type=kind))
                else:
                    columns.append(arrow.FixedSizeListArray.from_arrays(flat, type=kind))
                writer.write_table(arrow.Table.from_arrays(columns, schema=schema))

    return [_stream(folder / "rows.parquet", write)]


def _write_safetensors(table: Table, folder: Path) -> list[Path]:
    """`rows.safetensors`: `rows`, `keys` uint8 [n, 16], of a ragged table `offsets`, of a text
    table `text_bytes` and `text_offsets`; the table's record in the metadata."""
    small: dict[str, npt.NDArray[Any]] = {"keys": np.ascontiguousarray(table.keys)}
    if table.ragged:
        small["offsets"] = _offsets(table)
    if table.modality == "text":
        small |= text_arrays("text", table.texts())
    header: dict[str, Any] = {
        "__metadata__": {"vqa_cache": canonical_json(stamped(table.record)).decode()}
    }
    end = 0
    given, shape = _given_type(table), _shape(table)
    shapes: dict[str, tuple[str, tuple[int, ...], int]] = {
        "rows": (given, shape, math.prod(shape) * item_bytes(given))
    }
    shapes |= {name: (str(data.dtype), data.shape, data.nbytes) for name, data in small.items()}
    for name, (dtype, shape, size) in shapes.items():
        header[name] = {
            "dtype": _SAFETENSORS[dtype],
            "shape": list(shape),
            "data_offsets": [end, end + size],
        }
        end += size

    def write(file: BinaryIO) -> None:
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # so that the rows are aligned
        file.write(len(text).to_bytes(8, "little") + text)
        for _, rows in _batches(table, exact=False):
            file.write(rows.data)
        for data in small.values():
            file.write(data.tobytes())

    return [_stream(folder / "rows.safetensors", write)]


def _stream(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Write a file, whole or not at all."""
    with Workspace(path) as temporary:
        with open(temporary, "wb") as file:
            write(file)
        publish(temporary, path)
    return path


EXPORTS: dict[str, Callable[[Table, Path], list[Path]]] = {
    "npy": _write_npy,
    "parquet": _write_parquet,
    "safetensors": _write_safetensors,
}
