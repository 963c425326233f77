"""Bottom-up and top-down attention."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from train.components.ranges import Share, Size
from train.inputs.specification import Encoded, Input, Positions, Tokens, Vector
from train.layers.attention import attention_weights, spread_mask, weighted_sum
from train.layers.dropout import Dropout, check_share
from train.layers.gated_tanh import gated_tanh
from train.layers.positions import ReadPositions


class BottomUpAttention(nn.Module):
    """One look at the image's positions, scored beside the question; their weighted sum.

    "paper" is Anderson et al. 2018 (arXiv:1707.07998), equation 4: w f([v; q]) with a gated tanh
    f, as in the winning entry of 2017 (Teney et al. 2018, arXiv:1708.02711). "repository" is the
    widely used bottom-up-attention-vqa: w (relu(W v + b) * relu(U q + c)), without its weight
    normalisation. W [v; q] is computed as W_v v + W_q q, so that W_v v is once an image.
    """

    lane_options = ("dropout",)

    def __init__(
        self,
        image: Positions,
        question: Vector,
        states: Tokens | None = None,
        *,
        form: Literal["paper", "repository"] = "paper",
        hidden: Size = 512,
        dropout: Share = 0.0,
        boxes: bool = False,
    ) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"hidden is {hidden}; expected at least 1")
        check_share(dropout=dropout)
        self.form = form
        self.read = ReadPositions(image, boxes=boxes)
        self.gives = Vector(self.read.d)
        width = 2 * hidden if form == "paper" else hidden  # with the gate
        self.key = nn.Linear(self.read.d, width, bias=form == "repository")
        self.lead = nn.Linear(question.d, width)
        self.dropout = Dropout(dropout)
        self.score = nn.Linear(hidden, 1, bias=False)  # a bias would be lost in the softmax

    def forward(self, image: Input, question: Encoded) -> torch.Tensor:
        positions = self.read(image)
        keys, lead = self.key(positions.values), self.lead(question.vector)[:, None]
        if self.form == "paper":
            joined = gated_tanh(positions.spread(keys) + lead)
        else:
            joined = positions.spread(torch.relu(keys)) * torch.relu(lead)
        scores = self.score(self.dropout(joined))[..., 0]
        weights = attention_weights(scores, spread_mask(positions))
        return weighted_sum(weights, positions.spread(positions.values))
