"""Resident tables: rows of a cache's table held (or mapped) once, batches gathered by index.

No DataLoader: a batch is one `index_select` a table, straight into its columns of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from train.errors import TrainError
from train.inputs.device import free_memory
from train.inputs.large.blocks import Blocks, Windows
from train.inputs.large.mapped_rows import MappedRows
from train.inputs.large.read_ahead import ReadAhead
from train.inputs.specification import Grid, Input, Vector
from vqa_cache.system.device import CPU
from vqa_cache.system.memory import available_memory

Source = torch.Tensor | MappedRows | ReadAhead
Normalisation = Literal["none", "l2", "zscore", "whiten"]
Load = Literal["auto", "map", "read"]
Rows = npt.NDArray[np.int64]
_CHUNK_ROWS = 4096
_L2_FLOOR = 1e-12
_STEADY = 1e-6  # a direction's share of the largest variance, below which it is one of rounding
_WIDEST_WHITENED = 4096


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


@dataclass(frozen=True)
class Normaliser:
    """How rows are normalised, with the statistics of the training part that a run keeps.

    Attributes:
        mean: float32 [width] for "zscore" and "whiten", otherwise None.
        inverse_deviation: float32 [width] for "zscore".
        whitening: float64 [width, width] for "whiten": centred rows times it have the identity as
            their covariance, in the directions in which they vary.
    """

    kind: Normalisation
    mean: torch.Tensor | None = None
    inverse_deviation: torch.Tensor | None = None
    whitening: torch.Tensor | None = None

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Normalise float32 [n, width] in place. Each row alone, so chunks do not matter."""
        if self.mean is not None and self.inverse_deviation is not None:
            rows.sub_(self.mean).mul_(self.inverse_deviation)
        elif self.mean is not None and self.whitening is not None:
            # in float64, so that the order of a product's sums, which follows its size, is not seen
            rows.copy_(rows.sub_(self.mean).double() @ self.whitening)
        elif self.kind == "l2":
            rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(_L2_FLOOR))
        return rows

    def tensors(self) -> dict[str, torch.Tensor]:
        """The statistics by name."""
        named = {
            "mean": self.mean,
            "inverse_deviation": self.inverse_deviation,
            "whitening": self.whitening,
        }
        return {name: tensor for name, tensor in named.items() if tensor is not None}


def fit_normaliser(
    kind: Normalisation, source: Source, train_rows: Rows, *, width: int | None = None
) -> Normaliser:
    """Statistics of the given rows (each distinct row once) of [rows, n * width], over all n
    positions of a row together; None is the whole row.

    A dimension that never varies is centred and not scaled; a direction that never varies is 0
    when whitened. Raises TrainError for rows too wide to whiten.
    """
    width = width or source.shape[1]
    rows = distinct(train_rows, len(source))
    fitted = kind in ("zscore", "whiten")
    if not fitted or not len(rows):
        return Normaliser("none" if fitted else kind)
    if kind == "whiten":
        return _whitener(source, rows, width)
    shift = next(_chunks(source, rows)).view(-1, width).mean(dim=0)  # the squares lose nothing
    total, squares = torch.zeros(2, width, dtype=torch.float64)
    count = 0
    for rows_of_chunk in _chunks(source, rows):
        chunk = rows_of_chunk.view(-1, width).sub_(shift)
        count += len(chunk)
        ones = torch.ones(1, len(chunk))  # a product sums faster than `sum`
        total += (ones @ chunk)[0]
        squares += (ones @ chunk.square_())[0]
    offset = total / count
    mean = offset + shift.double()
    deviation = (squares / count - offset**2).clamp_min_(0).sqrt()
    steady = deviation <= 1e-6 * deviation.max()
    inverse = torch.where(steady, torch.ones_like(deviation), 1 / deviation)
    return Normaliser(kind, mean.float(), inverse.float())


def _whitener(source: Source, rows: Rows, width: int) -> Normaliser:
    if width > _WIDEST_WHITENED:
        raise TrainError(
            f"features.normalise = 'whiten': rows of {width:,} numbers, expected at most "
            f"{_WIDEST_WHITENED:,}; name a pooled tap, or use 'zscore'"
        )
    shift = next(_chunks(source, rows)).view(-1, width).mean(dim=0)
    total = torch.zeros(width, dtype=torch.float64)
    products = torch.zeros(width, width, dtype=torch.float64)
    count = 0
    for rows_of_chunk in _chunks(source, rows):
        chunk = rows_of_chunk.view(-1, width).sub_(shift)
        count += len(chunk)
        total += chunk.double().sum(dim=0)
        products += (chunk.T @ chunk).double()
    offset = total / count
    values, directions = torch.linalg.eigh(products / count - torch.outer(offset, offset))
    varies = values > _STEADY * values[-1].clamp_min(torch.finfo(torch.float64).tiny)
    scale = torch.where(varies, values.clamp_min(torch.finfo(torch.float64).tiny).rsqrt(), 0.0)
    mean = (offset + shift.double()).float()
    return Normaliser("whiten", mean, whitening=directions * scale)


def distinct(rows: Rows, n: int) -> Rows:
    """Which of n rows occur, sorted."""
    occurs = np.zeros(n, dtype=bool)
    occurs[rows] = True
    return np.flatnonzero(occurs)


class ResidentTable:
    """The rows that a run needs, ready to be gathered.

    Attributes:
        specification: what a batch of it is: a vector, or a grid.
        width: numbers in a row, of all positions of a grid.
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
            source: the table, [rows, *row_shape], any float type.
            used: rows of the table that will be asked for, sorted, distinct.
            normaliser: of a vector, or of each position of a grid.
            specification: None is a vector.
            home: where rows are held; None leaves them in their files.
            blocks: by the rows of the table.
        """
        flat = source.reshape(len(source), -1) if isinstance(source, torch.Tensor) else source
        self.width = flat.shape[1]
        self.normaliser = normaliser
        self.compute_type = compute_type
        self.device = device
        self.specification = specification or Vector(self.width)
        self.resident = home is not None
        self.home = home or CPU
        self._apart = self.home != device
        self.blocks = blocks.of_rows(used) if blocks is not None and self.resident else blocks
        self._values = self._read(flat, used) if self.resident else flat
        self.place = torch.full((len(flat),), -1, dtype=torch.int64)
        self.place[torch.from_numpy(used)] = (
            torch.arange(len(used)) if self.resident else torch.from_numpy(used)
        )

    def _read(self, flat: Source, used: Rows) -> torch.Tensor:
        values = torch.empty((len(used), self.width), dtype=self.compute_type, device=self.home)
        start = 0
        for chunk in _chunks(flat, used):
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
        exact = self._values.index_select(0, rows).float()
        return out.copy_(self._normalised(exact))

    def _normalised(self, rows: torch.Tensor) -> torch.Tensor:
        self.normaliser(rows.view(-1, self.specification.d))
        return rows

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


def _chunks(source: Source, rows: Rows) -> Iterator[torch.Tensor]:
    """Rows of [rows, width] as float32 copies, some thousands at a time."""
    for start in range(0, len(rows), _CHUNK_ROWS):
        picked = source.index_select(0, torch.from_numpy(rows[start : start + _CHUNK_ROWS]))
        yield picked.float() if picked.dtype != torch.float32 else picked


def residence(load: Load, needed: int, device: torch.device) -> torch.device | None:
    """Where rows that need so many bytes in compute type are held; None: they stay in files."""
    if load != "map" and device.type == "cuda" and needed <= free_memory(device) // 2:
        return device
    in_memory = load == "read" or (load == "auto" and needed <= available_memory() // 2)
    return CPU if in_memory else None
