"""Stacked attention."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, cast

import torch
from torch import nn

from train.components.ranges import Range, Share, Size
from train.inputs.specification import Encoded, Input, Positions, Tokens, Vector
from train.layers.attention import attention_weights, spread_mask, weighted_sum
from train.layers.dropout import Dropout, check_share
from train.layers.positions import ReadPositions

MOST_HOPS = 3
Hops = Annotated[int, Range(least=1, most=MOST_HOPS)]


class StackedAttention(nn.Module):
    """One to three looks at the image, each led by what the last one found.

    Yang et al. 2016 (arXiv:1511.02274), equations 6 and 15 to 22: positions are projected to the
    question's width, v = tanh(W f + b); a hop scores them by w tanh(W_v v + W_q u + b), and adds
    their weighted sum to u, which begins as the question. The scores' own bias is left out, as a
    softmax ignores it. Keys and values are computed once an image.
    """

    lane_options = ("dropout",)

    def __init__(
        self,
        image: Positions,
        question: Vector,
        states: Tokens | None = None,
        *,
        hops: Hops = 2,
        hidden: Size = 512,
        dropout: Share = 0.0,
        boxes: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= hops <= MOST_HOPS:
            raise ValueError(f"hops is {hops}; expected 1 to {MOST_HOPS}")
        if hidden < 1:
            raise ValueError(f"hidden is {hidden}; expected at least 1")
        check_share(dropout=dropout)
        self.gives = Vector(question.d)
        self.read = ReadPositions(image, boxes=boxes)
        self.value = nn.Linear(self.read.d, question.d)
        self.hops = nn.ModuleList(Hop(question.d, hidden, dropout) for _ in range(hops))

    def forward(self, image: Input, question: Encoded) -> torch.Tensor:
        positions = self.read(image)
        values = torch.tanh(self.value(positions.values))
        mask, spread_values = spread_mask(positions), positions.spread(values)
        led = question.vector
        for hop in cast(Iterable[Hop], self.hops):
            weights = attention_weights(hop(positions.spread(hop.key(values)), led), mask)
            led = led + weighted_sum(weights, spread_values)
        return led


class Hop(nn.Module):
    """The scores of one look: keys [b, n, k], made by `key`, and what leads, [b, d] -> [b, n]."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.key = nn.Linear(width, hidden, bias=False)
        self.lead = nn.Linear(width, hidden)
        self.dropout = Dropout(dropout)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, keys: torch.Tensor, led: torch.Tensor) -> torch.Tensor:
        joined = torch.tanh(keys + self.lead(led)[:, None])
        scores: torch.Tensor = self.score(self.dropout(joined))[..., 0]
        return scores
