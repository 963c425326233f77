"""Bilinear fusion in blocks of low rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from train.components.ranges import Size
from train.fusion.fusion import Fusion


class LowRank(Fusion):
    """The bilinear product of the modalities with a core tensor of blocks of low rank.

    BLOCK (Ben-younes et al. 2019, arXiv:1902.00038): each modality is projected to `dim`, cut into
    `chunks`; in each chunk `rank` products of linear layers are summed, normalised by signed square
    root and length, put side by side and projected to `out`. One chunk without the normalisation is
    MUTAN's core (Ben-younes et al. 2017, arXiv:1705.06676). A single modality is its own factor.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        *,
        dim: Size = 1600,
        chunks: Size = 20,
        rank: Size = 15,
        out: Size = 1024,
        normalised: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(sizes, **options)
        if min(dim, chunks, rank, out) < 1 or dim % chunks:
            raise ValueError(
                f"dim is {dim}, chunks {chunks}, rank {rank}, out {out}; expected at least 1 each, "
                "and chunks of one width"
            )
        self.rank, self.chunks, self.normalised = rank, chunks, normalised
        self.out_features = out
        width = dim // chunks
        self.projections = nn.ModuleDict(
            {m: nn.Linear(size, dim) for m, size in self.sizes.items()}
        )
        self.factors = nn.ModuleDict({m: Chunks(chunks, width, width * rank) for m in self.sizes})
        self.output = nn.Linear(dim, out)

    def join(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        product: torch.Tensor | None = None
        for modality, projection in self.projections.items():
            chunks = projection(inputs[modality]).unflatten(-1, (self.chunks, -1))
            factors = self.factors[modality](chunks)  # [..., chunks, rank * width]
            product = factors if product is None else product * factors
        assert product is not None
        joined = product.unflatten(-1, (self.rank, -1)).sum(dim=-2)
        if self.normalised:
            joined = functional.normalize(_signed_root(joined), dim=-1)
        fused: torch.Tensor = self.output(joined.flatten(-2))
        return fused


class Chunks(nn.Module):
    """A linear layer for each chunk: [..., chunks, in] -> [..., chunks, out]."""

    def __init__(self, chunks: int, in_features: int, out_features: int) -> None:
        super().__init__()
        layers = [nn.Linear(in_features, out_features) for _ in range(chunks)]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("...ci,coi->...co", x, self.weight) + self.bias


def _signed_root(x: torch.Tensor) -> torch.Tensor:
    """sign(x) sqrt(|x|), whose gradient at 0 is kept finite."""
    return x.sign() * (x.abs() + 1e-8).sqrt()
