"""Answers by the cosine between a predicted vector and their embeddings."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from train.heads.mlp import MlpHead
from train.layers.answer_vectors import Preparation, prepare

INITIAL_LOG_SCALE = math.log(1 / 0.07)  # scale 14.3, as CLIP begins (arXiv:2103.00020)
MAXIMAL_LOG_SCALE = math.log(100)


class CosineHead(MlpHead):
    """Logits from the cosine between a predicted vector and each answer's embedding.

    An `MlpHead`, with its options, predicts a vector of the answers' width. With `scaled`,
    logits = scale * cosine (+ bias per answer), scale = exp(s) learned and capped at 100. Without
    it logits stay in [-1, 1], where cross-entropy over C answers cannot fall under
    ln(1 + (C - 1) / e^2): 4.91 nats at 1,000 answers. That is kept to show the failure.
    The answer matrix is a buffer: saved with the weights, never trained.
    """

    lanes_alike = True

    answers: torch.Tensor

    def __init__(
        self,
        in_features: int,
        num_answers: int,
        answer_vectors: torch.Tensor,
        *,
        answers: Preparation = "centre",
        scaled: bool = True,
        answer_bias: bool = False,
        **layers: Any,
    ) -> None:
        if answer_vectors.ndim != 2 or len(answer_vectors) != num_answers:
            raise ValueError(
                f"answer_vectors has shape {list(answer_vectors.shape)}; "
                f"expected [{num_answers}, width], a row for every answer"
            )
        super().__init__(in_features, answer_vectors.shape[1], **layers)
        self.preparation = answers
        self.register_buffer("answers", prepare(answer_vectors, answers))
        self.log_scale = nn.Parameter(torch.tensor(INITIAL_LOG_SCALE)) if scaled else None
        self.answer_bias = nn.Parameter(torch.zeros(num_answers)) if answer_bias else None

    def offer(self, vectors: torch.Tensor, trained: torch.Tensor) -> None:
        """Choose among other answers from now on.

        Args:
            vectors: theirs, [others, width]; trained: those that the head was made with.

        Raises:
            ValueError: a bias was learned for each answer, which others have none of.
        """
        if self.answer_bias is not None:
            raise ValueError(
                "answer_bias = true: a bias was learned for each answer, and new answers have none"
            )
        self.answers = prepare(vectors, self.preparation, trained).to(self.answers.device)

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        predicted = functional.normalize(super().forward(fused).float(), dim=-1)
        with torch.autocast(predicted.device.type, enabled=False):
            # in bf16 a scale of 100 multiplies an error of 0.002, and the best answers tie
            logits = predicted @ self.answers.T
        if self.log_scale is not None:
            logits = logits * self.scale()
        return logits if self.answer_bias is None else logits + self.answer_bias

    def scale(self) -> torch.Tensor:
        """What cosines are multiplied by, a scalar of at most 100."""
        if self.log_scale is None:
            return torch.ones(())
        if self.training:
            with torch.no_grad():  # the parameter itself: beyond the cap it would get no gradient
                self.log_scale.clamp_(max=MAXIMAL_LOG_SCALE)
        return self.log_scale.clamp(max=MAXIMAL_LOG_SCALE).exp()
