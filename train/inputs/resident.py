"""Resident tables: rows of a cache's table held (or mapped) once, batches gathered by index.

No DataLoader: a batch is one `index_select` a table, straight into its columns of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch

from train.inputs.device import free_memory
from train.inputs.large.blocks import Blocks, Windows
from train.inputs.large.read_ahead import ReadAhead
from train.inputs.normaliser import Normaliser, Rows, Source, chunks_of, width_of
from train.inputs.specification import Grid, Input, Vector
from vqa_cache.quantised import widened
from vqa_cache.system.device import CPU
from vqa_cache.system.memory import available_memory

Load = Literal["auto", "map", "read"]


@dataclass(frozen=True)
class ItemRows:
    """Which rows each of n examples uses.

    Attributes:
        rows: int64 [m], in the order of the examples.
        offsets: None where each example has one row (m = n); otherwise int64 [n + 1]: example i
            has rows[offsets[i]:offsets[i + 1]] and is given their mean.
    """

    rows: torch.Tensor
    offsets: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows) if self.offsets is None else len(self.offsets) - 1

    def select(self, examples: torch.Tensor) -> ItemRows:
        """The same for some of the examples, int64 [k]."""
        if self.offsets is None:
            return ItemRows(self.rows[beside(self.rows, examples)])
        first = self.offsets[examples]
        counts = self.offsets[examples + 1] - first
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        within = torch.arange(int(offsets[-1])) - offsets[:-1].repeat_interleave(counts)
        return ItemRows(self.rows[first.repeat_interleave(counts) + within], offsets)


class ResidentTable:
    """The rows that a run needs, ready to be gathered.

    Attributes:
        specification: what a batch of it is: a vector, or a grid.
        width: numbers in a row, of all positions of a grid, normalised.
        resident: whether rows are in memory in compute type; otherwise they are mapped in stored
            type and converted batch by batch, to the same numbers.
        blocks: of a large table, by the rows of this object; None for others.
        device: where batches go. A GPU holds the rows itself where they take at most a half of its
            free memory; otherwise the host gathers them and copies each batch without waiting.
        home: where the rows are, and the row numbers that `gather` takes with one row an example.
    """

    def __init__(
        self,
        source: Source,
        used: Rows,
        normaliser: Normaliser,
        *,
        specification: Vector | Grid | None = None,
        compute_type: torch.dtype = torch.float32,
        home: torch.device | None = CPU,
        blocks: Blocks | None = None,
        device: torch.device = CPU,
    ) -> None:
        """
        Args:
            source: the table, [rows, *stored_shape].
            used: rows of the table that will be asked for, sorted, distinct.
            normaliser: of a vector, or of each position of a grid.
            specification: of the source; None is a vector.
            home: where rows are held; None leaves them in their files.
            blocks: by the rows of the table.
        """
        width = width_of(source)
        given = specification or Vector(width)
        self._given = given.d
        self.specification = replace(given, d=normaliser.gives(given.d))
        self.width = width // given.d * self.specification.d
        self.normaliser = normaliser
        self.compute_type = compute_type
        self.device = device
        self.resident = home is not None
        self.home = home or CPU
        self._apart = self.home != device
        self.blocks = blocks.of_rows(used) if blocks is not None and self.resident else blocks
        self._values = self._read(source, used) if self.resident else source
        self.place = torch.full((len(source),), -1, dtype=torch.int64)
        self.place[torch.from_numpy(used)] = (
            torch.arange(len(used)) if self.resident else torch.from_numpy(used)
        )

    def _read(self, source: Source, used: Rows) -> torch.Tensor:
        values = torch.empty((len(used), self.width), dtype=self.compute_type, device=self.home)
        start = 0
        for chunk in chunks_of(source, used):
            values[start : start + len(chunk)] = self._normalised(chunk)
            start += len(chunk)
        return values

    def local(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of the table as rows of this object, which `gather` takes."""
        return self.place[rows]

    def all_rows(self) -> torch.Tensor:
        """Every row that was asked for, [rows, width] in compute type."""
        if self.resident and isinstance(self._values, torch.Tensor):
            return self._values
        return self.gather(ItemRows(torch.arange(len(self._values))))

    def expect(self, windows: Windows) -> None:
        """Rows will be asked for in the order of these windows, which are read ahead."""
        if isinstance(self._values, ReadAhead):
            self._values.expect(windows)

    def gather(self, items: ItemRows, out: torch.Tensor | None = None) -> torch.Tensor:
        """Rows of a batch, [batch, width] in compute type.

        An example with several items is given the mean of their normalised rows.

        Args:
            out: where they go, perhaps some columns of a wider matrix.
        """
        if out is None:
            out = torch.empty((len(items), self.width), dtype=self.compute_type, device=self.device)
        if items.offsets is None:
            return self._rows(items.rows, out)
        rows = out.new_empty((len(items.rows), self.width))
        self._rows(items.rows.to(self.home, non_blocking=True), rows)
        counts = items.offsets.diff().to(out.device, non_blocking=True)
        # not index_add_, whose atomic additions come in another order each time
        return out.copy_(torch.segment_reduce(rows.float(), "mean", lengths=counts, unsafe=True))

    def _rows(self, rows: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        if not self._apart:
            return self._take(rows, out)
        # pinned, or the copy would wait; torch takes its memory again once the copy is done
        staged = torch.empty(out.shape, dtype=out.dtype, pin_memory=True)
        return out.copy_(self._take(rows, staged), non_blocking=True)

    def _take(self, rows: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        if self.resident and isinstance(self._values, torch.Tensor):
            return torch.index_select(self._values, 0, rows, out=out)
        exact = widened(self._values.index_select(0, rows))
        return out.copy_(self._normalised(exact))

    def _normalised(self, rows: torch.Tensor) -> torch.Tensor:
        return self.normaliser(rows.view(-1, self._given)).view(len(rows), self.width)

    def input(self, items: ItemRows, index: torch.Tensor | None) -> Input:
        """A batch: [u, d] of vectors, [u, n, d] of grids."""
        values = self.gather(items)
        if isinstance(self.specification, Grid):
            values = values.view(len(values), -1, self.specification.d)
        return Input(values, None, index)


def beside(values: OnDevice, index: torch.Tensor) -> torch.Tensor:
    """An index on the device of what it picks from; nobody waits for the copy."""
    there = values.device
    return index if index.device == there else index.to(there, non_blocking=True)


class OnDevice(Protocol):
    """Whatever gives batches on a device."""

    @property
    def device(self) -> torch.device: ...


def device_of(tables: Mapping[str, OnDevice]) -> torch.device:
    """Where the batches of a run's tables go."""
    return next(iter(tables.values())).device


def residence(load: Load, needed: int, device: torch.device) -> torch.device | None:
    """Where rows that need so many bytes in compute type are held; None: they stay in files."""
    if load != "map" and device.type == "cuda" and needed <= free_memory(device) // 2:
        return device
    in_memory = load == "read" or (load == "auto" and needed <= available_memory() // 2)
    return CPU if in_memory else None
