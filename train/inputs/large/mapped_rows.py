"""Rows of a table in its files: any of them through a memory map, neighbours with one read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from vqa_cache.arrays import check_files
from vqa_cache.dtypes import torch_type
from vqa_cache.errors import DamagedError
from vqa_cache.ragged import Whole
from vqa_cache.reading import memory_of
from vqa_cache.remedy import remedy
from vqa_cache.table import Table


@dataclass(frozen=True)
class Run:
    """Neighbouring rows of a shard; `first` counts the rows of all shards, as `place` does."""

    shard: int
    first: int
    count: int


class MappedRows:
    """Rows [rows, *stored_shape] of a table, as they are stored and in its row order; nothing is
    held in memory. Of a ragged table, its tokens: [tokens of all shards, *stored_shape].

    Attributes:
        shape: (rows, *stored_shape).
        place: int64 [rows], where a row is in the rows of all shards, joined in the order of the
            shards' names.
    """

    def __init__(self, table: Table) -> None:
        """Raises DamagedError where a file is missing or of another size than recorded."""
        for record in table.shards:
            for problem in check_files(table.folder, record, content=False):
                raise DamagedError(
                    f"table {table.name}: {problem}; mend it: {remedy(table.folder)}"
                )
        first = _first_of_shards(table)
        shard, row = table.places
        place = np.arange(first[-1]) if table.ragged else first[shard] + row
        self.shape = (len(place), *table.record.stored_shape)
        self.dtype = torch_type(table.dtype)
        self.place = torch.from_numpy(place)
        self._first = torch.from_numpy(first)
        self._shards = [table.stored(number) for number in range(len(table.shards))]

    def __len__(self) -> int:
        return self.shape[0]

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """Rows [n, *stored_shape] by number, int64 [n], as of a tensor; `dim` is 0.

        Raises:
            DamagedError: a block that holds some of them differs from its checksum, or its file is
                gone or has become shorter.
        """
        place = self.place[index]
        order = place.argsort()
        shard = torch.searchsorted(self._first, place[order], right=True) - 1
        numbers, counts = shard.unique_consecutive(return_counts=True)
        rows = torch.empty((len(index), *self.shape[1:]), dtype=self.dtype)
        for number, here in zip(numbers.tolist(), order.split(counts.tolist()), strict=True):
            rows[here] = self._shards[number].rows(place[here] - self._first[number])
        return rows

    def read(self, runs: Sequence[Run], out: torch.Tensor) -> None:
        """Read runs of neighbouring rows, one after another into `out`.

        The system is told of all of them first, so that the disk always has several to do.

        Args:
            runs: in the order of the shards.
            out: [sum of counts, *stored_shape], contiguous.

        Raises:
            DamagedError: as `index_select` does.
        """
        spans = [(number, [self._span(run) for run in own]) for number, own in _by_shard(runs)]
        for number, own in spans:
            self._shards[number].will_need(own)
        target, done = memory_of(out), 0
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        for number, own in spans:
            for first, last in own:
                size = (last - first) * row_bytes
                self._shards[number].read_between(first, last, target[done : done + size])
                done += size

    def _span(self, run: Run) -> tuple[int, int]:
        """First and last row in the shard."""
        first = run.first - int(self._first[run.shard])
        return first, first + run.count


def _by_shard(runs: Sequence[Run]) -> groupby[int, Run]:
    return groupby(runs, lambda run: run.shard)


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
