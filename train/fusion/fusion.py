"""What all fusions have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from train.layers.transform import Transform, Width

Modality = Literal["image", "text"]


class Fusion(nn.Module):
    """Transforms the modalities, then joins them: modality -> [b, width] to [b, out_features].

    Rows of the modalities in `l2_inputs` are given length 1 before anything else; with
    `l2_inputs_at` "evaluation" in evaluations alone, as in a journal that left the line out of its
    training. `transform` is a linear layer for each modality (see `Transform`).
    """

    out_features: int

    def __init__(
        self,
        sizes: Mapping[str, int],
        *,
        transform: Width = "off",
        l2_inputs: list[Modality] | None = None,
        l2_inputs_at: Literal["always", "evaluation"] = "always",
    ) -> None:
        super().__init__()
        self.transform = Transform(sizes, transform)
        self.sizes = self.transform.sizes
        self.l2_inputs = [name for name in sizes if modality_of(name) in (l2_inputs or ())]
        self.l2_inputs_at = l2_inputs_at

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if self.l2_inputs and (self.l2_inputs_at == "always" or not self.training):
            short = {name: _unit(inputs[name]) for name in self.l2_inputs}
            inputs = {**inputs, **short}
        return self.join(self.transform(inputs))

    @abstractmethod
    def join(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Transformed inputs to one tensor."""


def modality_of(name: str) -> str:
    """The modality of an input: "image 2" is an image's."""
    return name.partition(" ")[0]


def _unit(rows: torch.Tensor) -> torch.Tensor:
    """[..., width] of length 1, computed in float32 at least."""
    return functional.normalize(rows.float(), dim=-1).to(rows.dtype)
