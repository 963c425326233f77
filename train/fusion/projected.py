"""Projections of one width, before they are joined element by element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from train.components.ranges import Share, Size
from train.fusion.fusion import Fusion
from train.layers.dropout import Dropout
from train.layers.projection import Activation, activate


class Projected(Fusion):
    """Each modality projected to `dim` and activated; with `l2` each projection has length 1.

    `dropout` comes before the projections.
    """

    lane_options = ("dropout",)

    def __init__(
        self,
        sizes: Mapping[str, int],
        *,
        dim: Size = 1024,
        activation: Activation = "tanh",
        l2: bool = False,
        dropout: Share = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(sizes, **options)
        if dim < 1:
            raise ValueError(f"dim is {dim}; expected at least 1")
        self.projections = nn.ModuleDict(
            {modality: nn.Linear(width, dim) for modality, width in self.sizes.items()}
        )
        self.dropout = Dropout(dropout)
        self.activation = activation
        self.l2 = l2
        self.out_features = dim

    def project(self, inputs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """One [b, dim] a modality."""
        projected = [
            activate(layer(self.dropout(inputs[modality])), self.activation)
            for modality, layer in self.projections.items()
        ]
        return [functional.normalize(own, dim=-1) for own in projected] if self.l2 else projected
