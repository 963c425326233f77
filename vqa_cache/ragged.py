"""Rows of varying numbers of tokens: where they lie, and how several are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

    from vqa_cache.reading import ArrayReader

Whole = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Spans:
    """Where the tokens of every row of a table are.

    Attributes:
        shard: int64 [rows], the position of the row's shard.
        first: int64 [rows], the row's first token in its shard.
        count: int64 [rows], its number of tokens.
    """

    shard: Whole
    first: Whole
    count: Whole

    def gather(
        self, rows: Whole, stored: Callable[[int], ArrayReader], empty: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens of several rows, joined.

        Args:
            rows: int64 [n].
            stored: all tokens of a shard [tokens, *row_shape].
            empty: a tensor of the result's type and shape, without tokens [0, *row_shape].

        Returns:
            Tokens [sum of counts, *row_shape] and int64 offsets [n + 1].
        """
        import torch

        edges = np.concatenate([[0], np.cumsum(self.count[rows])])
        out = empty.new_empty((int(edges[-1]), *empty.shape[1:]))
        shard = self.shard[rows]
        for number in np.unique(shard):
            tokens = stored(int(number))
            for place in np.flatnonzero(shard == number).tolist():
                first, count = int(self.first[rows[place]]), int(self.count[rows[place]])
                out[edges[place] : edges[place + 1]] = tokens.between(first, first + count)
        return out, torch.from_numpy(edges)


def spans(shard: Whole, row: Whole, offsets: Iterable[Whole]) -> Spans:
    """Spans of rows that are known by shard and row in it.

    Args:
        offsets: for each shard, where its rows begin and end, int64 [rows in it + 1].
    """
    first, count = np.empty_like(row), np.empty_like(row)
    for number, edges in enumerate(offsets):
        mine = shard == number
        first[mine] = edges[row[mine]]
        count[mine] = edges[row[mine] + 1] - first[mine]
    return Spans(shard, first, count)


def pad(tokens: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Joined tokens as rows filled up with zeros, [rows, longest, *row_shape]."""
    import torch

    rows = list(torch.split(tokens, offsets.diff().tolist()))
    if not rows:
        return tokens.unsqueeze(1)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
