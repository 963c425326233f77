"""Reading stored rows into memory at the speed of a copy, every block checked on the way."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from vqa_cache.errors import DamagedError
from vqa_cache.records.stored import BLOCK_BYTES, Stored

if TYPE_CHECKING:
    import torch

_Block = tuple[Path, int, "memoryview[int]", str]  # file, offset, target, checksum


def read_checked(folder: Path, shards: Sequence[tuple[Stored, torch.Tensor]]) -> None:
    """Read the rows of shards into tensors, on all cores.

    Args:
        folder: the table's.
        shards: commit records, each with a contiguous tensor of the size of its rows.

    Raises:
        DamagedError: a file is missing, too short, or a block differs from its checksum.
    """
    blocks = [block for record, rows in shards for block in _blocks(folder, record, rows)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(_read_block, blocks):
            pass


def _blocks(folder: Path, record: Stored, rows: torch.Tensor) -> Iterator[_Block]:
    import torch

    array = record.arrays["rows"]
    path = folder / record.path("rows")
    target = rows.reshape(-1).view(torch.uint8).numpy().data
    for number, checksum in enumerate(array.blocks):
        start = number * BLOCK_BYTES
        part = target[start : start + BLOCK_BYTES]
        yield path, array.offset + start, part, checksum


def _read_block(block: _Block) -> None:
    path, offset, target, checksum = block
    try:
        with path.open("rb", buffering=0) as file:
            count = os.preadv(file.fileno(), [target], offset)
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror})") from error
    if count < len(target):
        raise _damaged(path, f"ends after {offset + count} bytes")
    if xxhash.xxh3_64_hexdigest(target) != checksum:  # of the processor's cache: nearly free
        raise _damaged(path, f"the rows in bytes {offset} to {offset + len(target)} were changed")


def _damaged(path: Path, what: str) -> DamagedError:
    return DamagedError(f"{path}: {what}; mend it: python -m precompute ... --repair")
