"""Inputs of several positions a row: tokens, regions, words, and grids of several images.

Rows have varying numbers of positions, so they are held joined, with the first position and the
count of each row; a batch is filled up with zeros to its longest example, and masked.
"""

from __future__ import annotations

import numpy as np
import torch

from train.inputs.large.mapped_rows import MappedRows
from train.inputs.normaliser import Normaliser
from train.inputs.resident import ItemRows, beside
from train.inputs.specification import Input, Tokens, Words
from vqa_cache.quantised import widened
from vqa_cache.system.device import CPU


class PositionTable:
    """Rows of positions, ready to be gathered.

    Attributes:
        specification: what a batch of it is.
        resident: whether positions are in memory in compute type; otherwise they are mapped in
            stored type and converted batch by batch, to the same numbers.
        device: where batches go.
        home: where `first` and `count` are.
        empty: how many of its rows have no position.
    """

    blocks = None  # never shuffled in windows

    def __init__(
        self,
        source: torch.Tensor | MappedRows,
        first: torch.Tensor,
        count: torch.Tensor,
        specification: Tokens | Words,
        *,
        normaliser: Normaliser | None = None,
        compute_type: torch.dtype = torch.float32,
        device: torch.device = CPU,
        boxes: torch.Tensor | None = None,
    ) -> None:
        """
        Args:
            source: positions [all, d], normalised and in compute type where it is a tensor; ids
                int64 [all] of words.
            first, count: int64 [rows], where a row's positions are.
            normaliser: of mapped positions, applied as they are gathered.
            boxes: float32 [all, 4] of all rows, joined in their order.
        """
        self.specification = specification
        self.normaliser = normaliser or Normaliser("none")
        self.compute_type = compute_type
        self.device = device
        self.resident = isinstance(source, torch.Tensor)
        self.home = source.device if isinstance(source, torch.Tensor) else CPU
        self.empty = int((count == 0).sum())
        self._source, self._boxes = source, boxes
        self._first, self._count = first.to(self.home), count.to(self.home)
        self._first_box = (count.cumsum(0) - count).to(self.home)

    @property
    def width(self) -> int:
        """Numbers in a position; 1 of words, which are ids."""
        return self.specification.d if isinstance(self.specification, Tokens) else 1

    def all_rows(self) -> torch.Tensor:
        """Every position, [all, d] in compute type."""
        assert isinstance(self._source, torch.Tensor)
        return self._source

    def input(self, items: ItemRows, index: torch.Tensor | None) -> Input:
        """A batch: values [u, n, d] or ids [u, t], its mask [u, n], boxes where there are any.

        An example with several rows is given the positions of all of them, one after another.
        """
        rows = beside(self._first, items.rows)
        place, mask = self._places(self._first[rows], self._count[rows], items.offsets)
        values = self._take(place.flatten()).view(*place.shape, *self._row_shape)
        boxes = None
        if self._boxes is not None:
            place, _ = self._places(self._first_box[rows], self._count[rows], items.offsets)
            boxes = self._boxes[place] * mask[..., None]
            boxes = boxes.to(self.device, non_blocking=True)
        mask = mask.to(self.device, non_blocking=True)
        values = values.masked_fill(~(mask if values.ndim == 2 else mask[..., None]), 0)
        return Input(values, mask, index, boxes)

    @property
    def _row_shape(self) -> tuple[int, ...]:
        return (self.specification.d,) if isinstance(self.specification, Tokens) else ()

    def _places(
        self, first: torch.Tensor, count: torch.Tensor, offsets: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the positions of each example are, int64 [u, n], and which of them there are. A
        place without a position is 0."""
        if offsets is None:
            # on a GPU always the longest of all: nobody waits, and a graph has one shape
            longest = int(count.max()) if self.home == CPU else self.specification.longest
            within = torch.arange(max(1, longest), device=first.device)
            mask = within < count[:, None]
            return (first[:, None] + within).masked_fill_(~mask, 0), mask
        offsets = offsets.to(first.device)
        total = torch.zeros(len(offsets) - 1, dtype=torch.int64, device=first.device)
        owner = torch.arange(len(total), device=first.device).repeat_interleave(offsets.diff())
        total.index_add_(0, owner, count)
        places = ranges(first, count)
        mask = torch.arange(max(1, int(total.max())), device=first.device) < total[:, None]
        joined = torch.zeros(mask.shape, dtype=torch.int64, device=first.device)
        joined[mask] = places
        return joined, mask

    def _take(self, places: torch.Tensor) -> torch.Tensor:
        if isinstance(self._source, torch.Tensor):
            if not len(self._source):  # no row has a position: zeros, masked everywhere
                return self._source.new_zeros((len(places), *self._source.shape[1:]))
            return self._source.index_select(0, places).to(self.device, non_blocking=True)
        exact = widened(self._source.index_select(0, places)).flatten(1)
        return self.normaliser(exact).to(self.compute_type).to(self.device, non_blocking=True)


def ranges(first: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """first[i], first[i] + 1, ... for each i, `count[i]` of them, joined."""
    ends = count.cumsum(0)
    within = torch.arange(int(count.sum()), device=first.device)
    return within + (first - (ends - count)).repeat_interleave(count)


def row_spans(lengths: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """First and count, int64 [rows], of rows that are joined in their order."""
    count = torch.from_numpy(np.asarray(lengths, dtype=np.int64))
    return count.cumsum(0) - count, count
