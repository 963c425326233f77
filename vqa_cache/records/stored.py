"""What a commit record says about bytes: files with digests, arrays with places (FORMAT.md 4.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from vqa_cache.dtypes import STORED_TYPES, item_bytes
from vqa_cache.errors import DamagedError
from vqa_cache.records.fields import LARGEST, Fields
from vqa_cache.records.names import HEX_16, HEX_32, is_path

BLOCK_BYTES = 4 * 1024 * 1024
ARRAY_TYPES = ("uint8", "int32", "int64", *STORED_TYPES)


@dataclass(frozen=True)
class StoredFile:
    """One file of a container.

    Attributes:
        path: relative to the folder that the record's paths start from; never leads out of it.
        xxh3_128: hex XXH3-128 of its bytes.
    """

    path: str
    bytes: int
    xxh3_128: str

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        """Raises DamagedError."""
        return cls(fields.text("path"), fields.whole("bytes"), fields.text("xxh3_128", HEX_32))


@dataclass(frozen=True)
class StoredArray:
    """Where one array's bytes are: `bytes` of them at `offset` of file number `file`.

    Attributes:
        blocks: hex XXH3-64 of each 4 MiB block of them, the last one shorter.
    """

    file: int
    offset: int
    bytes: int
    dtype: str
    shape: tuple[int, ...]
    blocks: tuple[str, ...]

    @classmethod
    def parse(cls, fields: Fields, files: tuple[StoredFile, ...]) -> Self:
        """Raises DamagedError where it is no array, or not one inside its file."""
        dtype, shape = fields.choice("dtype", ARRAY_TYPES), fields.wholes("shape")
        size = math.prod(shape) * item_bytes(dtype)  # a Python integer: never too large for itself
        if size > LARGEST:
            raise fields.wrong("shape", f"at most {LARGEST} bytes")
        array = cls(
            file=fields.whole("file", 0, len(files) - 1),
            offset=fields.whole("offset"),
            bytes=fields.whole("bytes", size, size),
            dtype=dtype,
            shape=shape,
            blocks=fields.texts("blocks", HEX_16),
        )
        end = files[array.file].bytes
        if array.offset + array.bytes > end or array.offset % item_bytes(dtype):
            raise fields.wrong(
                "offset", f"a multiple of {item_bytes(dtype)} up to {end - array.bytes}"
            )
        if len(array.blocks) != -(-array.bytes // BLOCK_BYTES):
            raise fields.wrong("blocks", f"{-(-array.bytes // BLOCK_BYTES)} checksums")
        return array


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Files, and the arrays in them by name."""

    files: tuple[StoredFile, ...]
    arrays: Mapping[str, StoredArray]

    def path(self, array: str) -> str:
        """The file that an array is in."""
        return self.files[self.arrays[array].file].path

    def stored_json(self) -> dict[str, Any]:
        """The `files` and `arrays` fields."""
        return {
            "files": [dict(vars(file)) for file in self.files],
            "arrays": {
                name: {**vars(array), "shape": list(array.shape), "blocks": list(array.blocks)}
                for name, array in self.arrays.items()
            },
        }


def parse_stored(fields: Fields, name: str, *, folder: bool) -> Stored:
    """The files and arrays of a record.

    Args:
        name: the container's path, which every file's path has to be, or with `folder` begin with.

    Raises:
        DamagedError: a path is another, an array lies outside its file, ...
    """
    listed = fields.listed("files")
    files = tuple(map(StoredFile.parse, listed))
    for one, file in zip(listed, files, strict=True):
        inside = file.path.startswith(f"{name}/") and is_path(file.path)
        if not (inside if folder else file.path == name):
            raise one.wrong("path", f"{name}/..." if folder else name)
    if len({file.path for file in files}) != len(files) or not files:
        raise fields.wrong("files", "at least one file, each of them once")
    arrays = {key: StoredArray.parse(one, files) for key, one in fields.named("arrays").items()}
    return Stored(files=files, arrays=arrays)


def expect_array(
    stored: Stored, name: str, dtype: str, shape: tuple[int | None, ...], where: str
) -> StoredArray:
    """One array of a record, as it has to be there.

    Args:
        shape: None leaves a size open.
        where: the record's file, for messages.

    Raises:
        DamagedError: it is absent, or of another type or shape.
    """
    found = stored.arrays.get(name)
    same = (
        found is not None
        and found.dtype == dtype
        and len(found.shape) == len(shape)
        and all(size in (None, has) for size, has in zip(shape, found.shape, strict=True))
    )
    if found is None or not same:
        has = "is not there" if found is None else f"is {found.dtype}{list(found.shape)}"
        sizes = ", ".join("*" if size is None else str(size) for size in shape)
        raise DamagedError(f"{where}: array {name!r} {has}, expected {dtype}[{sizes}]")
    return found
