"""Arrays in a container: filling, describing with checksums, reading, checking (FORMAT.md 4, 5)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import xxhash

from vqa_cache.containers import ArrayLayout, Extent
from vqa_cache.errors import is_shortage
from vqa_cache.records.stored import BLOCK_BYTES, Stored, StoredArray, StoredFile
from vqa_cache.system.durable import naming


def text_arrays(prefix: str, texts: list[str]) -> dict[str, npt.NDArray[Any]]:
    """Texts as two arrays, `<prefix>_bytes` uint8 and `<prefix>_offsets` int64 [n + 1]."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum([len(piece) for piece in encoded], out=offsets[1:])
    joined = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    return {f"{prefix}_bytes": joined, f"{prefix}_offsets": offsets}


def read_texts(joined: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> list[str]:
    """The inverse of `text_arrays`."""
    raw = joined.tobytes()
    edges = offsets.tolist()
    return [raw[a:b].decode() for a, b in pairwise(edges)]


class Texts(Sequence[str]):
    """The texts of `text_arrays`, each decoded when it is asked for: a million `str` objects take
    many times the memory of their bytes."""

    def __init__(self, joined: npt.NDArray[Any], offsets: npt.NDArray[Any]) -> None:
        self._joined, self._offsets = joined, offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        place = range(len(self))[number]  # raises IndexError, as a list does
        first, last = self._offsets[place : place + 2].tolist()
        return self._joined[first:last].tobytes().decode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def fill(file: Path, offset: int, data: npt.NDArray[Any] | bytes) -> None:
    """Write bytes at an offset of an existing file. Raises OSError (a full disk, say)."""
    flat = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else np.ascontiguousarray(data)
    view: memoryview[int] = flat.reshape(-1).view(np.uint8).data
    descriptor = os.open(file, os.O_WRONLY)
    try:
        with naming(file):
            while view:
                written = os.pwrite(descriptor, view, offset)
                view, offset = view[written:], offset + written
    finally:
        os.close(descriptor)


def copy_range(source: Path, offset: int, length: int, target: Path, start: int) -> None:
    """Write a range of one file into another, which exists, at `start`."""
    for block in _blocks(source, offset, length):
        fill(target, start, block)
        start += len(block)


def describe(
    container: Path, name: str, layouts: list[ArrayLayout], extents: dict[str, Extent]
) -> Stored:
    """The files and arrays of a finished container, for its commit record.

    Args:
        container: where it lies now.
        name: its final path, relative to the folder that the record's paths start from.
    """
    if container.is_dir():
        paths = sorted(path for path in container.rglob("*") if path.is_file())
    else:
        paths = [container]
    names = [str(path.relative_to(container)) if path != container else "" for path in paths]
    files = tuple(
        StoredFile(f"{name}/{inner}" if inner else name, path.stat().st_size, file_digest(path))
        for path, inner in zip(paths, names, strict=True)
    )
    arrays = {}
    for layout in layouts:
        extent = extents[layout.name]
        index = names.index(extent.file) if layout.bytes else 0
        blocks = block_digests(paths[index], extent.offset, layout.bytes)
        arrays[layout.name] = StoredArray(
            index, extent.offset, layout.bytes, layout.dtype, layout.shape, tuple(blocks)
        )
    return Stored(files=files, arrays=arrays)


def file_digest(path: Path) -> str:
    """Hex XXH3-128 of a file."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while piece := file.read(BLOCK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def block_digests(path: Path, offset: int, length: int) -> list[str]:
    """Hex XXH3-64 of each 4 MiB block of a range of a file, the last one shorter."""
    return [xxhash.xxh3_64_hexdigest(block) for block in _blocks(path, offset, length)]


def _blocks(path: Path, offset: int, length: int) -> Iterator[bytes]:
    with open(path, "rb") as file:
        file.seek(offset)
        while length > 0:
            block = file.read(min(BLOCK_BYTES, length))
            if not block:
                return
            length -= len(block)
            yield block


def check_files(folder: Path, record: Stored, *, content: bool) -> Iterator[str]:
    """Yield one line for each file of a record that is missing, of the wrong size or, with
    `content`, of the wrong bytes. Raises as `check_file` does."""
    for file in record.files:
        if problem := check_file(folder, file, content=content):
            yield problem


def check_file(folder: Path, file: StoredFile, *, content: bool) -> str | None:
    """What is wrong with one file of a record. Raises OSError where memory or file handles run out,
    which says nothing about it."""
    path = folder / file.path
    try:
        size = path.stat().st_size
        if size != file.bytes:
            return f"{path}: {size} bytes, expected {file.bytes}"
        if content and file_digest(path) != file.xxh3_128:
            return f"{path}: its bytes differ from the record's digest"
    except (FileNotFoundError, NotADirectoryError):
        return f"{path}: missing"
    except OSError as error:
        if is_shortage(error):
            raise
        return f"{path}: cannot be read ({error.strerror})"
    return None
