"""A question's token states, summed with learned weights."""

from __future__ import annotations

import torch
from torch import nn

from train.components.ranges import Count, Share, Size
from train.inputs.specification import Encoded, Input, Tokens, Vector
from train.layers.attention import attention_weights
from train.layers.positions import EmptyPosition
from train.layers.projection import Activation, Projection


class AttentionPool(nn.Module):
    """Sums of token states x, weighted by the softmax of w_g tanh(W x + b), one a glimpse, side by
    side (Lin et al. 2017, arXiv:1703.03130, equations 5 and 6).

    Then dropout, a linear layer of width `projection` (0: none), and the activation. Its states are
    the tokens as they came. Every distinct question is read once.
    """

    lane_options = ("dropout",)

    def __init__(
        self,
        given: Tokens,
        *,
        hidden: Size = 512,
        glimpses: Size = 1,
        dropout: Share = 0.0,
        projection: Count = 0,
        activation: Activation = "none",
    ) -> None:
        super().__init__()
        if min(hidden, glimpses) < 1:
            raise ValueError(
                f"hidden is {hidden}, glimpses {glimpses}; expected at least 1 of both"
            )
        self.empty = EmptyPosition(given.d)
        self.inner = nn.Linear(given.d, hidden)
        self.score = nn.Linear(hidden, glimpses, bias=False)
        self.projection = Projection(
            glimpses * given.d, width=projection, activation=activation, dropout=dropout
        )
        self.gives = Vector(self.projection.d)
        self.states = Tokens(given.d, given.longest)

    def forward(self, question: Input) -> Encoded:
        rows = self.empty(question)
        scores = self.score(torch.tanh(self.inner(rows.values))).transpose(1, 2)
        weights = attention_weights(scores, None if rows.mask is None else rows.mask[:, None])
        pooled = torch.bmm(weights.to(rows.values.dtype), rows.values).flatten(1)
        return Encoded(self.projection(rows.share(pooled)), rows)
