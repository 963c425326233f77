"""Hidden layers and a linear one."""

from __future__ import annotations

import torch
from torch import nn

from train.components.ranges import Share, Size
from train.layers.dropout import Dropout


class MlpHead(nn.Module):
    """Any number of hidden layers, then a linear one.

    [batch norm] -> [dropout] -> hidden x (linear -> [batch norm] -> ReLU -> [dropout]) -> linear.
    `hidden` lists the widths of the hidden layers and may be empty.
    """

    lanes_alike = True
    lane_options = ("dropout", "dropout_input")

    def __init__(
        self,
        in_features: int,
        num_answers: int,
        *,
        hidden: list[Size],
        dropout: Share = 0.0,
        dropout_input: Share = 0.0,
        batch_norm: bool = False,
        batch_norm_input: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if batch_norm_input:
            layers.append(nn.BatchNorm1d(in_features))
        if dropout_input:
            layers.append(Dropout(dropout_input))
        width = in_features
        for next_width in hidden:
            layers.append(nn.Linear(width, next_width))
            if batch_norm:
                layers.append(nn.BatchNorm1d(next_width))
            layers.append(nn.ReLU())
            if dropout:
                layers.append(Dropout(dropout))
            width = next_width
        self.layers = nn.Sequential(*layers)
        self.output = nn.Linear(width, num_answers)

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.layers(fused))
        return logits
