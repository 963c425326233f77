"""Rows made fit for a head: with the statistics of the training part, which a run keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from train.errors import TrainError
from train.inputs.large.mapped_rows import MappedRows
from train.inputs.large.read_ahead import ReadAhead
from vqa_cache.quantised import widened

Source = torch.Tensor | MappedRows | ReadAhead
Normalisation = Literal["none", "l2", "zscore", "whiten", "pca"]
Rows = npt.NDArray[np.int64]
CHUNK_ROWS = 4096
_L2_FLOOR = 1e-12
_STEADY = 1e-6  # a direction's share of the largest variance, below which it is one of rounding
_WIDEST_TURNED = 4096


@dataclass(frozen=True)
class Narrowing:
    """How many principal directions "pca" keeps: `width` of them, or as many as hold the share
    `keep` of the variance."""

    width: int | None = None
    keep: float | None = None

    def count(self, variances: torch.Tensor) -> int:
        """Of directions with these variances, falling."""
        if self.keep is None:
            return min(self.width or len(variances), len(variances))
        share = variances.cumsum(0) / variances.sum()
        return min(int((share < self.keep).sum()) + 1, len(variances))


@dataclass(frozen=True)
class Normaliser:
    """How rows are normalised, with the statistics of the training part that a run keeps.

    Attributes:
        mean: float32 [width] for "zscore", "whiten" and "pca", otherwise None.
        inverse_deviation: float32 [width] for "zscore".
        whitening: float64 [width, width] for "whiten": centred rows times it have the identity as
            their covariance, in the directions in which they vary.
        projection: float64 [width, kept] for "pca": centred rows times it are their coordinates in
            the principal directions, divided by one number so that their mean variance is 1.
    """

    kind: Normalisation
    mean: torch.Tensor | None = None
    inverse_deviation: torch.Tensor | None = None
    whitening: torch.Tensor | None = None
    projection: torch.Tensor | None = None

    def gives(self, width: int) -> int:
        """Numbers of what a row of so many becomes."""
        return width if self.projection is None else self.projection.shape[1]

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Normalise float32 [n, width], in place where the width stays. Each row alone, so chunks
        do not matter."""
        if self.mean is not None and self.projection is not None:
            return (rows.sub_(self.mean).double() @ self.projection).float()
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
            "projection": self.projection,
        }
        return {name: tensor for name, tensor in named.items() if tensor is not None}


def fit_normaliser(
    kind: Normalisation,
    source: Source,
    train_rows: Rows,
    *,
    width: int | None = None,
    narrowing: Narrowing | None = None,
) -> Normaliser:
    """Statistics of the given rows (each distinct row once) of n * width numbers, over all n
    positions of a row together; None is the whole row.

    A dimension that never varies is centred and not scaled; a direction that never varies is 0
    when whitened. Raises TrainError for rows too wide to turn.

    Args:
        narrowing: of "pca".
    """
    width = width or width_of(source)
    rows = distinct(train_rows, len(source))
    fitted = kind in ("zscore", "whiten", "pca")
    if not fitted or not len(rows):
        return Normaliser("none" if fitted else kind)
    if kind in ("whiten", "pca"):
        mean, variances, directions = _principal(kind, source, rows, width)
        if kind == "whiten":
            return _whitener(mean, variances, directions)
        return _projector(mean, variances, directions, narrowing or Narrowing())
    shift = next(chunks_of(source, rows)).view(-1, width).mean(dim=0)  # the squares lose nothing
    total, squares = torch.zeros(2, width, dtype=torch.float64)
    count = 0
    for rows_of_chunk in chunks_of(source, rows):
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


def _principal(
    kind: Normalisation, source: Source, rows: Rows, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean float32 [width], variances [width], rising, and their directions [width, width]."""
    if width > _WIDEST_TURNED:
        raise TrainError(
            f"features.normalise = {kind!r}: rows of {width:,} numbers, expected at most "
            f"{_WIDEST_TURNED:,}; name a pooled tap, or use 'zscore'"
        )
    shift = next(chunks_of(source, rows)).view(-1, width).mean(dim=0)
    total = torch.zeros(width, dtype=torch.float64)
    products = torch.zeros(width, width, dtype=torch.float64)
    count = 0
    for rows_of_chunk in chunks_of(source, rows):
        chunk = rows_of_chunk.view(-1, width).sub_(shift)
        count += len(chunk)
        total += chunk.double().sum(dim=0)
        products += (chunk.T @ chunk).double()
    offset = total / count
    values, directions = torch.linalg.eigh(products / count - torch.outer(offset, offset))
    return (offset + shift.double()).float(), values, directions


def _varying(variances: torch.Tensor) -> torch.Tensor:
    return variances > _STEADY * variances[-1].clamp_min(torch.finfo(torch.float64).tiny)


def _whitener(mean: torch.Tensor, variances: torch.Tensor, directions: torch.Tensor) -> Normaliser:
    least = torch.finfo(torch.float64).tiny
    scale = torch.where(_varying(variances), variances.clamp_min(least).rsqrt(), 0.0)
    return Normaliser("whiten", mean, whitening=directions * scale)


def _projector(
    mean: torch.Tensor, variances: torch.Tensor, directions: torch.Tensor, narrowing: Narrowing
) -> Normaliser:
    """Rows that do not vary keep one direction, in which they are 0."""
    falling, turned = variances.clamp_min(0).flip(0), directions.flip(1)
    varying = max(1, int(_varying(variances).sum()))
    count = narrowing.count(falling[:varying])
    kept = turned[:, :count]
    # of both signs the one whose largest number is positive, on every machine
    largest = kept.gather(0, kept.abs().argmax(dim=0, keepdim=True))
    size = falling[:count].mean().sqrt()
    scale = 1 / size if size > 0 else size
    return Normaliser("pca", mean, projection=kept * largest.sign() * scale)


def distinct(rows: Rows, n: int) -> Rows:
    """Which of n rows occur, sorted."""
    occurs = np.zeros(n, dtype=bool)
    occurs[rows] = True
    return np.flatnonzero(occurs)


def chunks_of(source: Source, rows: Rows) -> Iterator[torch.Tensor]:
    """Rows [n, width] as float32 copies, some thousands at a time."""
    for start in range(0, len(rows), CHUNK_ROWS):
        picked = source.index_select(0, torch.from_numpy(rows[start : start + CHUNK_ROWS]))
        yield widened(picked).flatten(1)


def width_of(source: Source) -> int:
    """Numbers in a row."""
    no_row = torch.empty((0, *source.shape[1:]), dtype=source.dtype)
    return widened(no_row).flatten(1).shape[1]
