"""What all fusions have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import nn

from train.layers.transform import Transform, Width


class Fusion(nn.Module):
    """Transforms the modalities, then joins them: modality -> [b, width] to [b, out_features].

    `transform` is a linear layer for each modality before anything else (see `Transform`).
    """

    out_features: int

    def __init__(self, sizes: Mapping[str, int], *, transform: Width = "off") -> None:
        super().__init__()
        self.transform = Transform(sizes, transform)
        self.sizes = self.transform.sizes

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return self.join(self.transform(inputs))

    @abstractmethod
    def join(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Transformed inputs to one tensor."""
