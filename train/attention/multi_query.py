"""Several learned queries."""

from __future__ import annotations

import torch
from torch import nn

from train.components.ranges import Size
from train.inputs.specification import Encoded, Input, Positions, Tokens, Vector
from train.layers.attention import attention_weights, spread_mask
from train.layers.positions import ReadPositions


class MultiQueryAttention(nn.Module):
    """Learned queries over the positions as they are; each sums its own part of one projection.

    Efficient probing (Psomas et al. 2026, arXiv:2506.10178): scores q x / sqrt(d) without a
    projection of keys, values W x cut into as many parts as there are queries. With `conditioned`,
    which is ours, a question mixes the queries: S + A(question) S instead of the scores S, so that
    all products with positions are still once an image. Without it the whole is, as in the paper.
    """

    def __init__(
        self,
        image: Positions,
        question: Vector,
        states: Tokens | None = None,
        *,
        queries: Size = 16,
        dim: Size = 512,
        conditioned: bool = True,
        boxes: bool = False,
    ) -> None:
        super().__init__()
        if queries < 1 or dim < 1 or dim % queries:
            raise ValueError(f"queries is {queries}; expected a divisor of dim, which is {dim}")
        self.gives = Vector(dim)
        self.read = ReadPositions(image, boxes=boxes)
        self.queries = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(queries, self.read.d), std=0.02)
        )
        self.value = nn.Linear(self.read.d, dim, bias=False)
        self.mix = nn.Linear(question.d, queries * queries) if conditioned else None

    def forward(self, image: Input, question: Encoded) -> torch.Tensor:
        positions = self.read(image)
        count, d = self.queries.shape
        scores = nn.functional.linear(positions.values, self.queries).transpose(1, 2) * d**-0.5
        values = self.value(positions.values).unflatten(2, (count, -1)).transpose(1, 2)
        if self.mix is None:
            mask = positions.mask
            return positions.spread(self._sum(scores, values, mask))
        mixing = self.mix(question.vector).unflatten(1, (count, count))
        scores = positions.spread(scores)
        scores = scores + torch.bmm(mixing, scores)
        return self._sum(scores, positions.spread(values), spread_mask(positions))

    @staticmethod
    def _sum(scores: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Scores [b, m, n] of m queries and their parts of the values, [b, m, n, dim / m] ->
        [b, dim]."""
        weights = attention_weights(scores, None if mask is None else mask[:, None])
        return torch.matmul(weights[:, :, None].to(values.dtype), values).flatten(1)
