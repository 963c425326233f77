"""Dropout that draws one random byte an element.

`nn.Dropout` draws a Bernoulli number an element on one core, a third of a step of a wide head. A
share of zeros is therefore a multiple of 1/256, the nearest one; the rest is scaled by exactly the
inverse of what is kept, so that the expectation stays. The scale is a number, not a tensor of the
input's type: in bfloat16 it would be rounded itself, and the expectation off by up to 0.4 %.
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
        return (x * kept(x, self.share)).mul_(scale_of(self.share))

    def extra_repr(self) -> str:
        """What the printed module names."""
        return f"share={self.share}"


def scale_of(share: float) -> float:
    """What the elements that are kept are multiplied by."""
    return LEVELS / (LEVELS - _zeros(share)) if share else 1.0


def _zeros(share: float) -> int:
    return min(max(round(share * LEVELS), 1), LEVELS - 1)


def kept(x: torch.Tensor, share: float, generator: torch.Generator | None = None) -> torch.Tensor:
    """Which elements of a tensor are kept: 0 for a share of them, 1 for the others.

    Args:
        x: the mask is of its shape, type and device.
        share: above 0 and below 1.
    """
    shape = x.shape
    words = torch.empty(-(-shape.numel() // 8), dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None, generator=generator)
    drawn = words.view(torch.uint8)[: shape.numel()].view(shape)
    # bytes of 0 and 1: neither comparing to nor reading bool is vectorised
    return drawn.ge_(_zeros(share)).to(x.dtype)


def check_share(**shares: float) -> None:
    """Raise ValueError for a share of zeros that is none."""
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"{name} is {share}; expected 0 <= {name} < 1")
