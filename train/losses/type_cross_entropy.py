"""Cross-entropy of one label, and of its type."""

from __future__ import annotations

from typing import Any

import torch

from train.components.ranges import NonNegative
from train.losses import IGNORED
from train.losses.cross_entropy import CrossEntropy


class TypeCrossEntropy(CrossEntropy):
    """`CrossEntropy`, with its options, and `type_weight` times that of the answer's type.

    A type is as probable as its answers together. The type of an example is that of its answer.
    """

    lane_form = "train.lanes.loss:LaneTypeCrossEntropy"
    lane_options = (*CrossEntropy.lane_options, "type_weight")

    answer_types: torch.Tensor

    def __init__(
        self,
        class_counts: torch.Tensor | None,
        answer_types: torch.Tensor,
        *,
        type_weight: NonNegative = 1.0,
        **answers: Any,
    ) -> None:
        """
        Args:
            answer_types: int64 [answers], the number of each answer's type.
        """
        super().__init__(class_counts, **answers)
        self.type_weight = type_weight
        self.register_buffer("answer_types", answer_types)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        of_types = types_cross_entropy(
            logits.float() / self.temperature, targets, self.answer_types
        )
        return super().forward(logits, targets) + self.type_weight * of_types


def types_cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, answer_types: torch.Tensor
) -> torch.Tensor:
    """Mean cross-entropy of the truths' types, float32 [...].

    Args:
        logits: float32 [..., b, answers].
        targets: int64 [b]; those ignored take no part, and without any other it is 0.
        answer_types: int64 [answers].
    """
    kept = targets != IGNORED
    same = answer_types == answer_types[targets.clamp_min(0)][:, None]  # [b, answers]
    share = logits.masked_fill(~same, float("-inf")).logsumexp(dim=-1) - logits.logsumexp(dim=-1)
    return -(share * kept).sum(dim=-1) / kept.sum().clamp_min(1)
