"""Dropout that draws one random byte an element.

`nn.Dropout` draws a Bernoulli number an element on one core, a third of a step of a wide head. A
share of zeros is therefore a multiple of 1/256, the nearest one; the rest is scaled by exactly its
inverse, so that the expectation stays.
"""

from __future__ import annotations

import torch
from torch import nn

LEVELS = 256


class Dropout(nn.Module):
    """Sets a share of all elements to zero while training (Srivastava et al. 2014, JMLR 15).

    Draws from the global random state, which the training step seeds.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.share:
            return x
        return x * keep_factors(x, self.share)

    def extra_repr(self) -> str:
        """What the printed module names."""
        return f"share={self.share}"


def keep_factors(
    x: torch.Tensor, share: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """What a tensor is multiplied by: 0 for a share of the elements, for the others the inverse of
    what is kept.

    Args:
        x: the factors are of its shape, type and device.
        share: above 0 and below 1.
    """
    shape = x.shape
    zeros = min(max(round(share * LEVELS), 1), LEVELS - 1)
    words = torch.empty(-(-shape.numel() // 8), dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None, generator=generator)
    drawn = words.view(torch.uint8)[: shape.numel()].view(shape)
    kept = drawn.ge_(zeros)  # bytes of 0 and 1: neither comparing to nor reading bool is vectorised
    return kept.to(x.dtype).mul_(LEVELS / (LEVELS - zeros))


def check_share(**shares: float) -> None:
    """Raise ValueError for a share of zeros that is none."""
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"{name} is {share}; expected 0 <= {name} < 1")
