"""Positions to one vector, without a question."""

from __future__ import annotations

import torch


def mean_of(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean of the positions that are there: [u, n, d], [u, n] -> [u, d]; 0 where none is."""
    count = mask.sum(dim=1, keepdim=True).clamp_min(1)
    mean: torch.Tensor = (values * mask[..., None]).sum(dim=1) / count
    return mean
