"""Projections multiplied element by element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn
from torch.nn import functional


class Product(nn.Module):
    """Each modality projected to `dim`, activated, then multiplied element by element.

    Antol et al. 2015 (arXiv:1505.00468) join image and question in this way. With `l2` each
    projection has length 1 and the product is scaled by sqrt(dim), which keeps its elements at
    the size they have without the normalisation.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        *,
        dim: int = 1024,
        activation: Literal["tanh", "relu", "none"] = "tanh",
        l2: bool = False,
    ) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim is {dim}; expected at least 1")
        self.projections = nn.ModuleDict(
            {modality: nn.Linear(width, dim) for modality, width in sizes.items()}
        )
        self.activation = activation
        self.l2 = l2
        self.out_features = dim

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        product: torch.Tensor | None = None
        for modality, projection in self.projections.items():
            projected = self._activate(projection(inputs[modality]))
            if self.l2:
                projected = functional.normalize(projected, dim=-1)
            product = projected if product is None else product * projected
        assert product is not None
        return product * self.out_features**0.5 if self.l2 else product

    def _activate(self, projected: torch.Tensor) -> torch.Tensor:
        if self.activation == "tanh":
            return torch.tanh(projected)
        return torch.relu(projected) if self.activation == "relu" else projected
