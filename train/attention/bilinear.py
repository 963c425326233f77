"""Bilinear attention."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from train.components.ranges import Share, Size
from train.inputs.specification import Encoded, Input, Positions, Tokens, Vector
from train.layers.attention import attention_weights, spread_mask
from train.layers.dropout import Dropout, check_share
from train.layers.positions import ReadPositions


class BilinearAttention(nn.Module):
    """Every pair of a question's state and an image's position has a weight, in several glimpses.

    Bilinear attention networks (Kim et al. 2018, arXiv:1805.07932): the weights of glimpse g are a
    softmax over all pairs of p_g (relu(U x) * relu(V y)) (equation 9); the bilinear pooling of
    states and positions under them is projected and added to every state (equation 11), which the
    next glimpse reads; the states are summed at the end. Without weight normalisation and without
    the counter. A question without states is one state: its vector. All projections of positions,
    one a glimpse, are once an image.
    """

    lane_options = ("dropout",)

    def __init__(
        self,
        image: Positions,
        question: Vector,
        states: Tokens | None = None,
        *,
        glimpses: Size = 4,
        dim: Size = 512,
        dropout: Share = 0.0,
        boxes: bool = False,
    ) -> None:
        super().__init__()
        if glimpses < 1 or dim < 1:
            raise ValueError(f"glimpses is {glimpses} and dim {dim}; expected at least 1 of both")
        check_share(dropout=dropout)
        width = question.d if states is None else states.d
        self.gives = Vector(width)
        self.has_states = states is not None
        self.read = ReadPositions(image, boxes=boxes)
        self.dropout = Dropout(dropout)
        self.key = nn.Linear(self.read.d, dim)
        self.query = nn.Linear(width, dim)
        self.scores = nn.Parameter(torch.randn(glimpses, dim) * dim**-0.5)
        self.glimpses = nn.ModuleList(Glimpse(self.read.d, width, dim) for _ in range(glimpses))

    def forward(self, image: Input, question: Encoded) -> torch.Tensor:
        positions = self.read(image)
        words = question.states if self.has_states else Input(question.vector[:, None])
        assert words is not None
        weights = self._weights(words, positions)
        there = spread_mask(words)
        states = words.spread(words.values)
        for number, glimpse in enumerate(cast(Iterable[Glimpse], self.glimpses)):
            values = self.dropout(torch.relu(glimpse.value(positions.values)))
            joint = glimpse(states, positions.spread(values), weights[:, number])
            states = states + joint[:, None]
        if there is not None:
            states = states.masked_fill(~there[..., None], 0)
        return states.sum(dim=1)

    def _weights(self, words: Input, positions: Input) -> torch.Tensor:
        """[b, g, t, n], of which those of one glimpse sum to 1."""
        keys = positions.spread(self.dropout(torch.relu(self.key(positions.values))))
        queries = words.spread(self.dropout(torch.relu(self.query(words.values))))
        scored = (queries[:, None] * self.scores.to(queries.dtype)[:, None]).flatten(1, 2)
        scores = torch.bmm(scored, keys.transpose(1, 2))  # [b, g t, n]
        shape = (len(scores), len(self.scores), queries.shape[1], keys.shape[1])
        mask = _pairs(spread_mask(words), spread_mask(positions))
        if mask is not None:
            mask = mask.expand(-1, *shape[2:]).flatten(1)[:, None]
        return attention_weights(scores.view(*shape[:2], -1), mask).view(shape)


class Glimpse(nn.Module):
    """States [b, t, d], values [b, n, k], made by `value`, and weights [b, t, n] -> [b, d]."""

    def __init__(self, positions: int, width: int, dim: int) -> None:
        super().__init__()
        self.value = nn.Linear(positions, dim)
        self.state = nn.Linear(width, dim)
        self.output = nn.Linear(dim, width)

    def forward(
        self, states: torch.Tensor, values: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        looked = torch.bmm(weights.to(values.dtype), values)  # [b, t, k]
        joint = (torch.relu(self.state(states)) * looked).sum(dim=1)
        added: torch.Tensor = self.output(joint)
        return added


def _pairs(words: torch.Tensor | None, positions: torch.Tensor | None) -> torch.Tensor | None:
    """Which pairs there are, [b, t or 1, n or 1], of two masks; None where all are."""
    if words is None:
        return None if positions is None else positions[:, None]
    return words[..., None] if positions is None else words[..., None] & positions[:, None]
