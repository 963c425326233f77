"""Projections of one width, before they are joined element by element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from train.components.ranges import Share, Size
from train.fusion.fusion import Fusion, Modality, modality_of
from train.layers.dropout import Dropout
from train.layers.projection import Activation, activate


class Projected(Fusion):
    """Each modality projected to `dim` and activated; with `l2` each projection has length 1.

    `dropout` comes before the projections. Modalities that `projected` leaves out (None: none) are
    used as they are, of width `dim`; with `pad_ones` a narrower one is filled up with ones, which
    leave the rest of a product as it is.
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
        projected: list[Modality] | None = None,
        pad_ones: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(sizes, **options)
        if dim < 1:
            raise ValueError(f"dim is {dim}; expected at least 1")
        self.projections = nn.ModuleDict(
            {
                name: nn.Linear(width, dim)
                for name, width in self.sizes.items()
                if projected is None or modality_of(name) in projected
            }
        )
        for name, width in self.sizes.items():
            if name not in self.projections and (width > dim or (width < dim and not pad_ones)):
                raise ValueError(
                    f"{name} has {width:,} numbers and is not projected; expected dim ({dim:,}) "
                    "of them: set dim, name it in projected, or set pad_ones where it has fewer"
                )
        self.dropout = Dropout(dropout)
        self.activation = activation
        self.l2 = l2
        self.out_features = dim

    def project(self, inputs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """One [b, dim] a modality."""
        projected = [self._project(name, self.dropout(inputs[name])) for name in self.sizes]
        return [functional.normalize(own, dim=-1) for own in projected] if self.l2 else projected

    def _project(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        if name in self.projections:
            return activate(self.projections[name](rows), self.activation)
        return functional.pad(rows, (0, self.out_features - rows.shape[-1]), value=1.0)
