"""Fusions: from one row per modality to one vector per example.

A fusion is a module with `out_features`, built from `sizes` (modality -> width, in the order image,
text) and called with `inputs` (modality -> float [batch, width]). An experiment with one modality
has one input; every fusion accepts that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from train.lookup import Factory, find_factory

FUSIONS: dict[str, str] = {
    "concat": "train.fusion:Concat",
    "product": "train.fusion:Product",
}


def lookup(name: str) -> Factory:
    """The fusion of that name. Raises TrainError with the known ones."""
    return find_factory(FUSIONS, name, "fusion")


class Concat(nn.Module):
    """The rows side by side: [batch, sum of widths]."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.modalities = tuple(sizes)
        self.out_features = sum(sizes.values())

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        rows = [inputs[modality] for modality in self.modalities]
        if len(rows) == 1:
            return rows[0]
        joined = side_by_side(rows)
        return torch.cat(rows, dim=1) if joined is None else joined


def side_by_side(rows: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """The matrix whose neighbouring columns [batch, width] the tensors are; None if they are not,
    or a gradient flows through them."""
    first, width = rows[0], sum(tensor.shape[1] for tensor in rows)
    offset = first.storage_offset()
    for tensor in rows:
        same_memory = tensor.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if (
            tensor.requires_grad
            or not same_memory
            or (tensor.dtype, len(tensor)) != (first.dtype, len(first))
            or tensor.stride() != (width, 1)
            or tensor.storage_offset() != offset
        ):
            return None
        offset += tensor.shape[1]
    return first.as_strided((len(first), width), (width, 1))


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
