"""The largest of neighbouring numbers."""

from __future__ import annotations

import torch
from torch import nn


class Maxout(nn.Module):
    """The maximum of each `pieces` neighbours: [..., d] -> [..., d / pieces].

    Behind a linear layer it is a maxout layer (Goodfellow et al. 2013, arXiv:1302.4389).
    """

    lanes_alike = True

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, self.pieces)).amax(dim=-1)
