"""Cross-entropy of one label."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from train.components.ranges import NonNegative, Positive, Share
from train.losses import IGNORED


class CrossEntropy(nn.Module):
    """Mean cross-entropy of the targets that are not ignored; 0 where all are.

    Logits are divided by `temperature` first. With `label_smoothing` e the target is (1 - e) on the
    truth and e / answers everywhere (Szegedy et al. 2016, arXiv:1512.00567). With
    `class_weight_power` p an answer weighs count^-p, and the mean is one by weight: 0 leaves the
    answers as they come, 1 gives each the same share.
    """

    lane_form = "train.lanes.loss:LaneCrossEntropy"
    lane_options: tuple[str, ...] = ("temperature", "label_smoothing", "class_weight_power")

    weights: torch.Tensor | None

    def __init__(
        self,
        class_counts: torch.Tensor | None = None,
        *,
        label_smoothing: Share = 0.0,
        temperature: Positive = 1.0,
        class_weight_power: NonNegative = 0.0,
    ) -> None:
        """
        Args:
            class_counts: int64 [answers], how often the training part has each answer; needed
                where `class_weight_power` is not 0.

        Raises:
            ValueError: they are needed and not given.
        """
        super().__init__()
        if class_weight_power and class_counts is None:
            raise ValueError("class_weight_power needs the counts of the answers")
        self.label_smoothing = label_smoothing
        self.temperature = temperature
        weights = None
        if class_weight_power and class_counts is not None:
            weights = class_weights(class_counts, class_weight_power)
        self.register_buffer("weights", weights)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        total = functional.cross_entropy(
            logits.float() / self.temperature if self.temperature != 1 else logits.float(),
            targets,
            weight=self.weights,
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        kept = targets != IGNORED
        if self.weights is None:
            return total / kept.sum().clamp_min(1)
        weight = (self.weights[targets.clamp_min(0)] * kept).sum()
        return total / torch.where(weight > 0, weight, 1)


def class_weights(counts: torch.Tensor, power: float) -> torch.Tensor:
    """(highest count / count)^power of each answer, float32; an answer never seen counts as 1."""
    counts = counts.double().clamp_min(1)
    return (counts.max() / counts).pow(power).float()
