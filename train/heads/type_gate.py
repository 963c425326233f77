"""Answers behind a gate that predicts their type."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from train.heads.mlp import MlpHead


class TypeGateHead(MlpHead):
    """The probability of an answer's type times that of the answer among those of its type.

    One linear layer predicts the type, an `MlpHead`, with its options, tells the answers of a type
    apart. Answers of a type that is improbable are masked, whatever the head says of them (Deuser
    et al. 2022, arXiv:2206.05281, with a sigmoid in the place of probabilities). Logits are
    logarithms of probabilities that add up to 1, over all answers and over those of a type to that
    of the type; so a loss over them can hold a term for the type (`type_cross_entropy`).
    """

    lanes_alike = True

    answer_types: torch.Tensor
    by_type: torch.Tensor
    back: torch.Tensor

    def __init__(
        self, in_features: int, num_answers: int, answer_types: torch.Tensor, **layers: Any
    ) -> None:
        """
        Args:
            answer_types: int64 [answers], the number of each answer's type, from 0.
        """
        if list(answer_types.shape) != [num_answers]:
            raise ValueError(
                f"answer_types has shape {list(answer_types.shape)}; expected [{num_answers}], "
                "a type for every answer"
            )
        super().__init__(in_features, num_answers, **layers)
        self.sizes = torch.bincount(answer_types).tolist()
        self.gate = nn.Linear(in_features, len(self.sizes))
        self.register_buffer("answer_types", answer_types)
        by_type = answer_types.argsort(stable=True)
        self.register_buffer("by_type", by_type, persistent=False)
        self.register_buffer("back", by_type.argsort(), persistent=False)

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        among = super().forward(fused).float().index_select(-1, self.by_type)
        shares = [one.log_softmax(dim=-1) for one in among.split(self.sizes, dim=-1)]
        types = self.gate(fused).float().log_softmax(dim=-1)
        found = torch.cat(shares, dim=-1).index_select(-1, self.back)
        return found + types.index_select(-1, self.answer_types)
