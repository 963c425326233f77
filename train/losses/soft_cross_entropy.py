"""Cross-entropy of a distribution over the answers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from train.components.ranges import Positive


class SoftCrossEntropy(nn.Module):
    """Mean cross-entropy of the annotators' shares; examples without one take no part.

    Logits are divided by `temperature` first. Targets are float [b, answers], each row adds up to
    1 or is all 0.
    """

    targets: Literal["scores", "shares"] = "shares"

    def __init__(self, *, temperature: Positive = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        log_shares = (logits.float() / self.temperature).log_softmax(dim=-1)
        total = -(targets * log_shares).sum()
        return total / (targets.sum(dim=-1) > 0).sum().clamp_min(1)
