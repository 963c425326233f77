"""Losses: from logits [batch, answers] and targets int64 [batch] to one number, in nats.

A target of `IGNORED` takes no part: neither in the sum nor in the mean.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from train.lookup import Factory, find_factory

LOSSES: dict[str, str] = {"cross_entropy": "train.losses:CrossEntropy"}
IGNORED = -1


def lookup(name: str) -> Factory:
    """The loss of that name. Raises TrainError with the known ones."""
    return find_factory(LOSSES, name, "loss")


class CrossEntropy(nn.Module):
    """Mean cross-entropy of the targets that are not ignored; 0 where all are.

    With `label_smoothing` e the target is (1 - e) on the truth and e / answers everywhere
    (Szegedy et al. 2016, arXiv:1512.00567).
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"label_smoothing is {label_smoothing}; expected 0 <= label_smoothing < 1"
            )
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        total = functional.cross_entropy(
            logits.float(),
            targets,
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return total / (targets != IGNORED).sum().clamp_min(1)
