"""One linear layer."""

from __future__ import annotations

import torch
from torch import nn

from train.components.ranges import Share
from train.layers.dropout import Dropout


class LinearHead(nn.Module):
    """Dropout on the input, then one linear layer."""

    lanes_alike = True
    lane_options = ("dropout_input",)

    def __init__(self, in_features: int, num_answers: int, *, dropout_input: Share = 0.0) -> None:
        super().__init__()
        self.dropout = Dropout(dropout_input)
        self.output = nn.Linear(in_features, num_answers)

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.dropout(fused))
        return logits
