"""A yes or no for each answer."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional


class BinaryCrossEntropy(nn.Module):
    """Binary cross-entropy of each answer's logit with its score, summed over the answers, the mean
    over the examples (Teney et al. 2018, arXiv:1708.02711, section 3.8).

    Targets are float [b, answers], 0 to 1.
    """

    targets: Literal["scores", "shares"] = "scores"

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        total = functional.binary_cross_entropy_with_logits(
            logits.float(), targets, reduction="sum"
        )
        return total / len(logits)
