"""The gated tanh of bottom-up attention."""

from __future__ import annotations

import torch


def gated_tanh(x: torch.Tensor) -> torch.Tensor:
    """tanh of the first half of the width times the sigmoid of the second: [..., 2 d] -> [..., d]
    (Anderson et al. 2018, arXiv:1707.07998, equations 1 to 3)."""
    value, gate = x.chunk(2, dim=-1)
    return torch.tanh(value) * torch.sigmoid(gate)
