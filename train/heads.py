"""Heads: from a fused vector [batch, in_features] to logits [batch, num_answers].

They are not probabilities. A head is built with `in_features` and `num_answers`; one with a further
parameter `answer_vectors` is given the vocabulary's embeddings [num_answers, width]. Its
keyword-only parameters are the options of `[head]` in an experiment.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from train.answer_vectors import Preparation, prepare
from train.dropout import Dropout
from train.lookup import Factory, find_factory

HEADS: dict[str, str] = {
    "linear": "train.heads:LinearHead",
    "mlp": "train.heads:MlpHead",
    "cosine": "train.heads:CosineHead",
}
INITIAL_LOG_SCALE = math.log(1 / 0.07)  # scale 14.3, as CLIP begins (arXiv:2103.00020)
MAXIMAL_LOG_SCALE = math.log(100)


def lookup(name: str) -> Factory:
    """The head of that name. Raises TrainError with the known ones."""
    return find_factory(HEADS, name, "head")


class LinearHead(nn.Module):
    """Dropout on the input, then one linear layer."""

    def __init__(self, in_features: int, num_answers: int, *, dropout_input: float = 0.0) -> None:
        super().__init__()
        _check_share(dropout_input=dropout_input)
        self.dropout = Dropout(dropout_input)
        self.output = nn.Linear(in_features, num_answers)

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.dropout(fused))
        return logits


class MlpHead(nn.Module):
    """Any number of hidden layers, then a linear one.

    [batch norm] -> [dropout] -> hidden x (linear -> [batch norm] -> ReLU -> [dropout]) -> linear.
    `hidden` lists the widths of the hidden layers and may be empty.
    """

    def __init__(
        self,
        in_features: int,
        num_answers: int,
        *,
        hidden: list[int],
        dropout: float = 0.0,
        dropout_input: float = 0.0,
        batch_norm: bool = False,
        batch_norm_input: bool = False,
    ) -> None:
        super().__init__()
        _check_share(dropout=dropout, dropout_input=dropout_input)
        if any(width < 1 for width in hidden):
            raise ValueError(f"hidden is {hidden}; expected widths of at least 1")
        layers: list[nn.Module] = []
        if batch_norm_input:
            layers.append(nn.BatchNorm1d(in_features))
        if dropout_input:
            layers.append(Dropout(dropout_input))
        width = in_features
        for next_width in hidden:
            layers.append(nn.Linear(width, next_width))
            if batch_norm:
                layers.append(nn.BatchNorm1d(next_width))
            layers.append(nn.ReLU())
            if dropout:
                layers.append(Dropout(dropout))
            width = next_width
        self.layers = nn.Sequential(*layers)
        self.output = nn.Linear(width, num_answers)

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.layers(fused))
        return logits


class CosineHead(MlpHead):
    """Logits from the cosine between a predicted vector and each answer's embedding.

    An `MlpHead`, with its options, predicts a vector of the answers' width. With `scaled`,
    logits = scale * cosine (+ bias per answer), scale = exp(s) learned and capped at 100. Without
    it logits stay in [-1, 1], where cross-entropy over C answers cannot fall under
    ln(1 + (C - 1) / e^2): 4.91 nats at 1,000 answers. That is kept to show the failure.
    The answer matrix is a buffer: saved with the weights, never trained.
    """

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
        self.register_buffer("answers", prepare(answer_vectors, answers))
        self.log_scale = nn.Parameter(torch.tensor(INITIAL_LOG_SCALE)) if scaled else None
        self.answer_bias = nn.Parameter(torch.zeros(num_answers)) if answer_bias else None

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        predicted = functional.normalize(super().forward(fused).float(), dim=-1)
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


def _check_share(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"{name} is {share}; expected 0 <= {name} < 1")
