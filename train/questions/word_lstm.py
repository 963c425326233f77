"""An LSTM or GRU over a question's words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from train.components.ranges import Count
from train.inputs.specification import Encoded, Input, Tokens, Words
from train.layers.positions import EmptyPosition
from train.layers.projection import Activation, activate
from train.questions.token_lstm import TokenLstm

DEFAULT_DIM = 300


class WordLstm(TokenLstm):
    """An embedding of each word, then as TokenLstm, with its options.

    `dim` is the embedding's width (0: that of given vectors, otherwise 300). Given vectors are
    where the embedding begins, or with `frozen` what it stays; they are then a buffer, saved with
    the weights. `embedding_activation` "tanh" is the "FC + tanh" of Antol et al. 2015
    (arXiv:1505.00468).
    """

    vectors: torch.Tensor

    def __init__(
        self,
        given: Words,
        *,
        dim: Count = 0,
        frozen: bool = False,
        embedding_activation: Activation = "none",
        **lstm: Any,
    ) -> None:
        width = _width(given, dim, frozen)
        super().__init__(Tokens(width, given.longest), **lstm)
        self.embedding_activation = embedding_activation
        self.embedding: nn.Embedding | None = None
        if frozen:
            self.register_buffer("vectors", given.vectors)
            self.empty = EmptyPosition(width, learned=False)
            return
        self.embedding = nn.Embedding(given.size, width, padding_idx=0)
        if given.vectors is not None:
            with torch.no_grad():
                self.embedding.weight.copy_(given.vectors)
                self.embedding.weight[0] = 0

    def forward(self, question: Input) -> Encoded:
        if self.embedding is None:
            embedded = functional.embedding(question.values, self.vectors)
        else:
            embedded = self.embedding(question.values)
        embedded = activate(embedded, self.embedding_activation)
        return super().forward(replace(question, values=embedded))


def _width(given: Words, dim: int, frozen: bool) -> int:
    """Width of the embedding. Raises ValueError where options and vectors do not fit."""
    if dim < 0:
        raise ValueError(f"dim is {dim}; expected a width, or 0 for that of the given vectors")
    if given.vectors is None:
        if frozen:
            raise ValueError("frozen is true, and no vectors are given; name a file of them")
        return dim or DEFAULT_DIM
    size, width = given.vectors.shape
    if size != given.size:
        raise ValueError(f"vectors of {size:,} words; expected {given.size:,}, one a word")
    if dim not in (0, width):
        raise ValueError(f"dim is {dim}, and the given vectors have {width}; leave dim out")
    return width
