"""The layer that ends a question branch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from train.layers.dropout import Dropout, check_share

Activation = Literal["none", "tanh", "relu"]


class Projection(nn.Module):
    """Dropout, a linear layer of `width` (0: none), and an activation.

    Attributes:
        d: width of the result.
    """

    def __init__(
        self, in_features: int, *, width: int, activation: Activation, dropout: float
    ) -> None:
        super().__init__()
        check_share(dropout=dropout)
        if width < 0:
            raise ValueError(f"projection is {width}; expected a width, or 0 for none")
        self.d = width or in_features
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(in_features, width) if width else None
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dropout(x)
        return activate(x if self.linear is None else self.linear(x), self.activation)


def activate(x: torch.Tensor, activation: Activation) -> torch.Tensor:
    """The activation of that name."""
    if activation == "none":
        return x
    return torch.tanh(x) if activation == "tanh" else torch.relu(x)
