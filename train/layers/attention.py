"""Attention over positions: weights under a mask, weighted sums, several heads at once.

A mask is bool [b, n], true where something is. It never hides all positions of an example: see
`train.layers.positions.EmptyPosition`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from train.inputs.specification import Input

Seen = list[tuple[torch.Tensor, bool]]
_watching: list[Seen] = []


def attention_weights(scores: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Softmax over the last dimension of scores [..., n]; 0 where the mask, of a shape that
    broadcasts to it, is false."""
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(dim=-1)
    for seen in _watching:
        seen.append((weights.detach(), mask is not None))
    return weights


@contextmanager
def watching() -> Iterator[Seen]:
    """What `attention_weights` gives meanwhile, in its order, each with whether it had a mask."""
    seen: Seen = []
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)


def spread_mask(positions: Input) -> torch.Tensor | None:
    """The mask of every example, [b, n]."""
    return None if positions.mask is None else positions.spread(positions.mask)


def weighted_sum(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Weights [b, n] of values [b, n, d] -> [b, d]."""
    return torch.bmm(weights[:, None].to(values.dtype), values)[:, 0]


class MultiHeadAttention(nn.Module):
    """Scaled dot products with several heads (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

    Keys have no bias: it would add the same to all scores of a query, which a softmax ignores.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads is {heads}; expected a divisor of the width {width}")
        self.heads = heads
        self.share = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, over: Input) -> torch.Tensor:
        """Queries [b, t, d] look at `over` [u, n, d] of b examples -> [b, t, d].

        Keys and values are computed once for each distinct row.
        """
        mask = spread_mask(over)
        attended = functional.scaled_dot_product_attention(
            self._split(self.query(x)),
            over.spread(self._split(self.key(over.values))),
            over.spread(self._split(self.value(over.values))),
            attn_mask=None if mask is None else mask[:, None, None],
            dropout_p=self.share if self.training else 0.0,
        )
        joined: torch.Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return joined

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """[b, n, d] -> [b, h, n, d / h]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
