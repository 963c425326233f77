"""Images that lie inside other files: bytes of a tar, cells of a parquet file.

An image's path is a file's, or `FILE::MEMBER` where FILE ends in `.tar` or `.parquet`:

    shards/train-0000.tar::1536+20481            bytes 1,536 to 22,016 of the tar
    data/train-00000-of-00002.parquet::image/17  row 17 of the column `image`
    data/train-00000-of-00002.parquet::images/17/1   its second picture

so that whatever opens a picture by its path opens these too, and their content key is the one that
the same picture has as a file. Nothing is unpacked.
"""

from __future__ import annotations

import os
import re
import threading
from functools import lru_cache
from io import BufferedIOBase, BytesIO
from typing import Any

from data.example import DatasetError, one_line

_MEMBER = re.compile(r"(?s)(.*\.(?:tar|parquet))::(.+)")
_RANGE = re.compile(r"(\d+)\+(\d+)")
_CELL = re.compile(r"(?s)(.+?)/(\d+)(?:/(\d+))?")
_reading = threading.Lock()


def container(path: str) -> str:
    """The file that a path is in; the path itself where it is a file's."""
    inside = _MEMBER.fullmatch(path)
    return inside[1] if inside else path


def open_member(path: str) -> BufferedIOBase:
    """The bytes of a picture, wherever it lies. Raises OSError where there are none."""
    inside = _MEMBER.fullmatch(path)
    if inside is None:
        return open(path, "rb")
    file, member = inside[1], inside[2]
    if file.endswith(".tar"):
        return BytesIO(_of_tar(file, member))
    return BytesIO(_of_parquet(file, member))


def _of_tar(file: str, member: str) -> bytes:
    found = _RANGE.fullmatch(member)
    with open(file, "rb") as tar:
        size = os.fstat(tar.fileno()).st_size
        if found is None or (start := int(found[1])) + (length := int(found[2])) > size:
            raise FileNotFoundError(2, "no such member", f"{file}::{member}")
        tar.seek(start)
        return tar.read(length)


def _of_parquet(file: str, member: str) -> bytes:
    found = _CELL.fullmatch(member)
    if found is None:
        raise FileNotFoundError(2, "no such member", f"{file}::{member}")
    row = int(found[2])
    with _reading:  # one group of rows is decoded once, not once a thread
        stat = os.stat(file)
        parquet = _opened(file, stat.st_mtime_ns, stat.st_size)
        for group in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(group).num_rows
            if row < count:
                column = _column(file, stat.st_mtime_ns, stat.st_size, found[1], group)
                try:
                    cell = column[row].as_py()
                except ValueError as error:  # of pyarrow, or of a text that is not UTF-8
                    raise OSError(f"{file}::{member}: {one_line(str(error))}") from None
                return _picture(cell, found[3], f"{file}::{member}")
            row -= count
    raise FileNotFoundError(2, "no such member", f"{file}::{member}")


def _picture(cell: Any, number: str | None, path: str) -> bytes:
    if number is not None:
        cell = cell[int(number)] if isinstance(cell, list) and int(number) < len(cell) else None
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(content, bytes):
        raise FileNotFoundError(2, "no bytes in this row", path)
    return content


def parquet_file(path: str) -> Any:
    """An open file of pyarrow. Raises DatasetError where pyarrow is not there, or the file is no
    parquet file, and OSError."""
    try:
        import pyarrow.parquet
        from pyarrow import ArrowException
    except ModuleNotFoundError:
        raise DatasetError(
            f"{path}: pyarrow, which reads parquet files, is not installed; "
            "pip install 'vqa-cache[parquet]'"
        ) from None
    try:
        return pyarrow.parquet.ParquetFile(path)
    except ArrowException as error:
        told = " ".join(str(error).split())[:200]
        raise DatasetError(f"{path}: not a parquet file: {told}; get the file again") from None


# arguments beside the path: a file that was replaced is opened again
@lru_cache(maxsize=16)
def _opened(file: str, _mtime_ns: int, _size: int) -> Any:
    try:
        return parquet_file(file)
    except DatasetError as error:
        raise OSError(str(error)) from None


@lru_cache(maxsize=2)  # groups of rows: some hundred pictures each
def _column(file: str, mtime_ns: int, size: int, column: str, group: int) -> Any:
    from pyarrow import ArrowException

    try:
        table = _opened(file, mtime_ns, size).read_row_group(group, columns=[column])
        return table.column(column)
    except (ArrowException, KeyError) as error:
        raise OSError(f"{file}: column {column}: {one_line(str(error))}") from None
