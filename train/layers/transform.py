"""A linear layer for each modality before they are joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from train.components.ranges import Size

Width = Literal["off", "preserve", "smallest", "largest"] | Size


class Transform(nn.Module):
    """Each modality through a linear layer without an activation, or as it is.

    "preserve" keeps every width, "smallest" and "largest" are those among the modalities, a number
    is the width of all, "off" is no layer at all.

    Attributes:
        sizes: modality -> width of what it gives.
    """

    lanes_alike = True

    def __init__(self, sizes: Mapping[str, int], width: Width) -> None:
        super().__init__()
        if isinstance(width, int) and width < 1:
            raise ValueError(f"transform is {width}; expected a width of at least 1")
        self.sizes = {modality: _width(size, sizes, width) for modality, size in sizes.items()}
        self.layers = nn.ModuleDict(
            {}
            if width == "off"
            else {m: nn.Linear(size, self.sizes[m]) for m, size in sizes.items()}
        )

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Modality -> [..., width]."""
        if not self.layers:
            return inputs
        return {modality: layer(inputs[modality]) for modality, layer in self.layers.items()}


def _width(size: int, sizes: Mapping[str, int], width: Width) -> int:
    if isinstance(width, int):
        return width
    named = {"smallest": min(sizes.values()), "largest": max(sizes.values())}
    return named.get(width, size)
