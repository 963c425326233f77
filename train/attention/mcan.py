"""Deep modular co-attention."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from train.components.ranges import Share, Size
from train.inputs.specification import Encoded, Input, Positions, Tokens, Vector
from train.layers.attention import (
    MultiHeadAttention,
    attention_weights,
    spread_mask,
    weighted_sum,
)
from train.layers.dropout import Dropout, check_share
from train.layers.positions import ReadPositions


class CoAttention(nn.Module):
    """Self-attention over a question's states, then attention of the image's positions to each
    other and to the last of those states; both are reduced by attention and joined.

    MCAN (Yu et al. 2019, arXiv:1906.10770), the encoder-decoder form: `layers` units SA over the
    states, as many units SGA over the positions, each sublayer LayerNorm(x + dropout(f(x))); the
    attentional reduction of equation 11, and LayerNorm(W_x x + W_y y) of equation 12. The small
    model is 6 layers of 512 with 8 heads; large is 1,024 with 16. What depends on the question
    alone is computed once for each distinct one; of the image that is the projection and the
    first self-attention, everything after it has seen the question.
    """

    lane_options = ("dropout",)

    def __init__(
        self,
        image: Positions,
        question: Vector,
        states: Tokens,
        *,
        layers: Size = 6,
        dim: Size = 512,
        heads: Size = 8,
        out: Size = 1024,
        dropout: Share = 0.1,
        boxes: bool = False,
    ) -> None:
        super().__init__()
        if min(layers, dim, heads, out) < 1:
            raise ValueError(
                f"layers is {layers}, dim {dim}, heads {heads}, out {out}; expected at least 1 each"
            )
        check_share(dropout=dropout)
        self.gives = Vector(out)
        self.read = ReadPositions(image, boxes=boxes)
        self.image = nn.Linear(self.read.d, dim)
        self.words: nn.Module = nn.Identity() if states.d == dim else nn.Linear(states.d, dim)
        self.encoder = nn.ModuleList(SelfAttention(dim, heads, dropout) for _ in range(layers))
        self.decoder = nn.ModuleList(GuidedAttention(dim, heads, dropout) for _ in range(layers))
        self.reduce_image = Reduction(dim, out, dropout)
        self.reduce_words = Reduction(dim, out, dropout)
        self.norm = nn.LayerNorm(out)

    def forward(self, image: Input, question: Encoded) -> torch.Tensor:
        assert question.states is not None
        words = _with(question.states, self.words(question.states.values))
        for unit in self.encoder:
            words = _with(words, unit(words))
        positions = self.read(image)
        positions = _with(positions, self.image(positions.values))
        for unit in cast(Iterable[GuidedAttention], self.decoder):
            # the first self-attention is the image's own; after it every example has its own
            looked = unit.attend(positions)
            positions = Input(positions.spread(looked), spread_mask(positions))
            positions = _with(positions, unit(positions.values, words))
        joined = words.spread(self.reduce_words(words)) + self.reduce_image(positions)
        fused: torch.Tensor = self.norm(joined)
        return fused


class Attend(nn.Module):
    """LayerNorm(x + dropout(attention of x to itself)), [u, n, d] -> [u, n, d]."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, heads, dropout)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, positions: Input) -> torch.Tensor:
        own = Input(positions.values, positions.mask)
        looked = self.dropout(self.attention(positions.values, own))
        normed: torch.Tensor = self.norm(positions.values + looked)
        return normed


class SelfAttention(nn.Module):
    """The unit SA of figure 2: attention to itself, then two layers for each position."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attend = Attend(dim, heads, dropout)
        self.feed = FeedForward(dim, dropout)

    def forward(self, positions: Input) -> torch.Tensor:
        fed: torch.Tensor = self.feed(self.attend(positions))
        return fed


class GuidedAttention(nn.Module):
    """The unit SGA of figure 3 after its first sublayer `attend`: attention of positions
    [b, n, d] to the question's states, then two layers for each position."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attend = Attend(dim, heads, dropout)
        self.guided = MultiHeadAttention(dim, heads, dropout)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(dim)
        self.feed = FeedForward(dim, dropout)

    def forward(self, positions: torch.Tensor, words: Input) -> torch.Tensor:
        looked = self.dropout(self.guided(positions, words))
        fed: torch.Tensor = self.feed(self.norm(positions + looked))
        return fed


class FeedForward(nn.Module):
    """LayerNorm(x + dropout(two layers)), the inner one four times as wide."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, 4 * dim)
        self.output = nn.Linear(4 * dim, dim)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fed = self.output(self.dropout(torch.relu(self.inner(x))))
        normed: torch.Tensor = self.norm(x + self.dropout(fed))
        return normed


class Reduction(nn.Module):
    """Attentional reduction, equation 11: the sum of positions [u, n, d] weighted by a small
    network, projected to [u, out]."""

    def __init__(self, dim: int, out: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)
        self.score = nn.Linear(dim, 1, bias=False)
        self.output = nn.Linear(dim, out)

    def forward(self, positions: Input) -> torch.Tensor:
        scores = self.score(self.dropout(torch.relu(self.inner(positions.values))))[..., 0]
        weights = attention_weights(scores, positions.mask)
        reduced: torch.Tensor = self.output(weighted_sum(weights, positions.values))
        return reduced


def _with(positions: Input, values: torch.Tensor) -> Input:
    return Input(values, positions.mask, positions.index)
