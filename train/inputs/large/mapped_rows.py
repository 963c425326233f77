"""Rows of a table in its files: any of them through a memory map, neighbours with one read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from vqa_cache.arrays import check_files
from vqa_cache.dtypes import map_tensor, torch_type
from vqa_cache.errors import DamagedError
from vqa_cache.ragged import Whole
from vqa_cache.table import Table


@dataclass(frozen=True)
class _Shard:
    """Where rows [rows, width] are: from `offset` in a file, and `first` in all shards joined."""

    path: Path
    offset: int
    rows: int
    first: int


@dataclass(frozen=True)
class Run:
    """Neighbouring rows of a shard; `first` counts the rows of all shards, as `place` does."""

    shard: int
    first: int
    count: int


class MappedRows:
    """Rows [rows, width] of a table, in stored type and its row order; nothing is held in memory.
    Of a ragged table, its tokens: [tokens of all shards, width].

    Attributes:
        shape: (rows, width).
        place: int64 [rows], where a row is in the rows of all shards, joined in the order of the
            shards' names.
    """

    def __init__(self, table: Table) -> None:
        """Raises DamagedError where a file is missing or of another size than recorded."""
        for record in table.shards:
            for problem in check_files(table.folder, record, content=False):
                raise _damaged(f"table {table.name}: {problem}")
        first = _first_of_shards(table)
        shard, row = table.places
        place = np.arange(first[-1]) if table.ragged else first[shard] + row
        self.shape = (len(place), math.prod(table.row_shape))
        self.dtype = torch_type(table.dtype)
        self._row_bytes = table.row_bytes
        self.place = torch.from_numpy(place)
        self._stored_type = table.dtype
        self._first = torch.from_numpy(first)
        self._maps: dict[int, torch.Tensor] = {}
        self._shards = []
        for number, record in enumerate(table.shards):  # not the records: they hold all keys
            path, array = table.folder / record.path("rows"), record.arrays["rows"]
            begin = int(first[number])
            self._shards.append(_Shard(path, array.offset, array.shape[0], begin))

    def __len__(self) -> int:
        return self.shape[0]

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """Rows [n, width] by number, int64 [n], as of a tensor; `dim` is 0."""
        place = self.place[index]
        order = place.argsort()
        shard = torch.searchsorted(self._first, place[order], right=True) - 1
        numbers, counts = shard.unique_consecutive(return_counts=True)
        rows = torch.empty((len(index), self.shape[1]), dtype=self.dtype)
        for number, here in zip(numbers.tolist(), order.split(counts.tolist()), strict=True):
            rows[here] = self._map(number).index_select(0, place[here] - self._first[number])
        return rows

    def _map(self, number: int) -> torch.Tensor:
        if number not in self._maps:
            shard = self._shards[number]
            self._maps[number] = map_tensor(
                shard.path,
                offset=shard.offset,
                dtype=self._stored_type,
                shape=(shard.rows, self.shape[1]),
            )
        return self._maps[number]

    def read(self, runs: Sequence[Run], out: torch.Tensor) -> None:
        """Read runs of neighbouring rows, one after another into `out`.

        The system is told of all of them first, so that the disk always has several to do.

        Args:
            runs: in the order of the shards.
            out: [sum of counts, width], contiguous.

        Raises:
            DamagedError: a file is gone, has become shorter, or cannot be read.
        """
        for number, own in groupby(runs, lambda run: run.shard):
            with self._opened(number) as (descriptor, _):
                for run in own:
                    offset, size = self._span(run)
                    os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_WILLNEED)
        target = out.reshape(-1).view(torch.uint8).numpy().data
        for number, own in groupby(runs, lambda run: run.shard):
            with self._opened(number) as (descriptor, path):
                for run in own:
                    offset, size = self._span(run)
                    _fill(descriptor, path, offset, target[:size])
                    target = target[size:]

    @contextmanager
    def _opened(self, number: int) -> Iterator[tuple[int, Path]]:
        path = self._shards[number].path
        try:
            with path.open("rb", buffering=0) as file:
                yield file.fileno(), path
        except OSError as error:
            raise _damaged(f"{path}: cannot be read ({error.strerror})") from error

    def _span(self, run: Run) -> tuple[int, int]:
        """Offset and size in bytes."""
        shard = self._shards[run.shard]
        return shard.offset + (
            run.first - shard.first
        ) * self._row_bytes, run.count * self._row_bytes


def _first_of_shards(table: Table) -> Whole:
    """Where each shard begins among the rows, or tokens, of all of them, int64 [shards + 1]."""
    counts = [record.arrays["rows"].shape[0] for record in table.shards]
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def first_positions(table: Table) -> Whole:
    """The first token of each row of a table among the tokens of all shards, int64 [rows]; of one
    that is not ragged, whose rows have several positions, the same."""
    shard, row = table.places
    begin = _first_of_shards(table)
    if not table.ragged:
        return (begin[shard] + row) * math.prod(table.row_shape[:-1])
    within = np.empty_like(row)
    for number in range(len(table.shards)):
        mine = shard == number
        within[mine] = table.offsets(number)[row[mine]]
    return begin[shard] + within


def _fill(descriptor: int, path: Path, offset: int, target: memoryview[int]) -> None:
    while target:
        count = os.preadv(descriptor, [target], offset)
        if count == 0:
            raise _damaged(f"{path}: ends after {offset} bytes")
        target, offset = target[count:], offset + count


def _damaged(what: str) -> DamagedError:
    return DamagedError(f"{what}; mend it: python -m precompute ... --repair")
