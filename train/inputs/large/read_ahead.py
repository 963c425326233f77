"""Rows of a large table, window after window: one is read while the one before it is trained on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from train.inputs.large.blocks import Blocks, Windows
from train.inputs.large.mapped_rows import MappedRows, Run
from vqa_cache.system.allocator import give_back_freed_memory


@dataclass(frozen=True)
class _Loaded:
    """A window in memory.

    Attributes:
        rows: [rows, *stored_shape].
        shift: int64 [blocks], what takes a row of a block from its place in the files to `rows`.
    """

    number: int
    buffer: int
    rows: torch.Tensor
    shift: torch.Tensor


class ReadAhead:
    """The rows of a table as `MappedRows` gives them, faster where they are asked for in windows.

    It holds two windows at most. What is asked for beside the expected windows
    comes through the memory map: slowly, and the same.

    Attributes:
        shape: (rows, *stored_shape).
    """

    def __init__(self, rows: MappedRows, blocks: Blocks) -> None:
        self.shape, self.dtype = rows.shape, rows.dtype
        self.blocks = blocks
        self._rows = rows
        self._buffers: list[torch.Tensor] = []
        self._reader = ThreadPoolExecutor(1, "read-ahead")
        self._windows: Windows | None = None
        self._window_of = torch.empty(0)  # int64 [blocks + 1], for block -1 too
        self._here: _Loaded | None = None
        self._next: tuple[int, Future[_Loaded]] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def expect(self, windows: Windows) -> None:
        """Rows will be asked for in the order of these windows, from any of them on."""
        if windows is not self._windows:
            self._windows, self._here, self._next = windows, None, None
            self._window_of = torch.cat([windows.of_block, torch.tensor([-1])])

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """Rows [n, *stored_shape] by number, int64 [n], as of a tensor; `dim` is 0.

        Raises:
            DamagedError: a file is gone, has become shorter, or cannot be read.
        """
        if self._windows is None or len(index) == 0:
            return self._rows.index_select(0, index)
        window = self._window_of[self.blocks.of_row[index].long()]
        numbers = window.unique().tolist()
        if len(numbers) == 1:
            return self._from(numbers[0], index)
        rows = torch.empty((len(index), *self.shape[1:]), dtype=self._rows.dtype)
        for number in numbers:  # a batch over the edge of a window
            here = (window == number).nonzero()[:, 0]
            rows[here] = self._from(number, index[here])
        return rows

    def _from(self, number: int, index: torch.Tensor) -> torch.Tensor:
        if number < 0:
            return self._rows.index_select(0, index)
        loaded = self._window(number)
        shift = loaded.shift[self.blocks.of_row[index].long()]
        return loaded.rows.index_select(0, self._rows.place[index] + shift)

    def _window(self, number: int) -> _Loaded:
        """A window's rows; the next window is being read when they are given."""
        if self._here is None or self._here.number != number:
            if self._next is None or self._next[0] != number:
                self._next = number, self._begin(number)
            self._here = self._next[1].result()
            assert self._windows is not None
            more = number + 1 < self._windows.count
            self._next = (number + 1, self._begin(number + 1)) if more else None
        return self._here

    def _begin(self, number: int) -> Future[_Loaded]:
        """Read a window into the buffer that is not in use. One thread reads, so an earlier reading
        that nobody waits for any more is over when this one begins."""
        assert self._windows is not None
        if not self._buffers:
            give_back_freed_memory()  # joining keys with rows left more than the windows take
            self._buffers = [self._new_buffer() for _ in range(2)]
        free = 0 if self._here is None else 1 - self._here.buffer
        return self._reader.submit(self._read, self._windows, number, free)

    def _new_buffer(self) -> torch.Tensor:
        largest = int(self.blocks.count.max()) * min(self.blocks.per_window, len(self.blocks))
        return torch.empty((largest, *self.shape[1:]), dtype=self._rows.dtype)

    def _read(self, windows: Windows, number: int, buffer: int) -> _Loaded:
        chosen = (windows.of_block == number).nonzero()[:, 0]
        count = self.blocks.count[chosen]
        ends = count.cumsum(0)
        rows = self._buffers[buffer][: int(ends[-1])]
        self._rows.read(self._runs(chosen), rows)
        shift = torch.zeros(len(self.blocks), dtype=torch.int64)
        shift[chosen] = ends - count - self.blocks.first[chosen]
        return _Loaded(number, buffer, rows, shift)

    def _runs(self, chosen: torch.Tensor) -> list[Run]:
        """Blocks, in the order of the files, with those joined that follow upon each other."""
        runs: list[Run] = []
        columns = (self.blocks.shard, self.blocks.first, self.blocks.count)
        for shard, first, count in zip(*(c[chosen].tolist() for c in columns), strict=True):
            last = runs[-1] if runs else None
            if last and (last.shard, last.first + last.count) == (shard, first):
                runs[-1] = Run(shard, last.first, last.count + count)
            else:
                runs.append(Run(shard, first, count))
        return runs
