"""Layers in the order in which an experiment lists them."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import nn

from train.components.ranges import Checked, Size
from train.layers.dropout import Dropout
from train.layers.maxout import Maxout

_PLAIN = ("relu", "tanh", "batch_norm")


def check_piece(piece: str) -> str:
    """The piece. Raises ValueError where it is none that `SequenceHead` knows."""
    name, _, number = piece.partition("=")
    if piece in _PLAIN:
        return piece
    try:
        if name == "dropout" and 0 < float(number) < 1:
            return piece
        if name == "maxout" and int(number) >= 2:
            return piece
    except ValueError:
        pass
    raise ValueError(
        f"expected the width of a linear layer, {', '.join(map(repr, _PLAIN))}, 'dropout=0.5' (a "
        "share above 0 and below 1) or 'maxout=2' (2 pieces or more)"
    )


Piece = Annotated[str, Checked(check_piece)]


class SequenceHead(nn.Module):
    """Any layers in any order, then a linear one.

    `layers` lists them: a width is a linear layer, "relu", "tanh" and "batch_norm" are what they
    say, "dropout=0.5" sets a share to zero, "maxout=2" keeps the largest of each two neighbours.
    """

    lanes_alike = True

    def __init__(self, in_features: int, num_answers: int, *, layers: list[Size | Piece]) -> None:
        super().__init__()
        made: list[nn.Module] = []
        width = in_features
        for piece in layers:
            layer, width = _layer(piece, width)
            made.append(layer)
        self.layers = nn.Sequential(*made)
        self.output = nn.Linear(width, num_answers)

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.layers(fused))
        return logits


def _layer(piece: int | str, width: int) -> tuple[nn.Module, int]:
    """The layer that a piece means behind a width, and the width that it gives."""
    if isinstance(piece, int):
        return nn.Linear(width, piece), piece
    name, _, number = check_piece(piece).partition("=")
    if name == "maxout":
        pieces = int(number)
        if width % pieces:
            raise ValueError(f"{piece} behind a width of {width:,}, no multiple of {pieces}")
        return Maxout(pieces), width // pieces
    if name == "dropout":
        return Dropout(float(number)), width
    if name == "batch_norm":
        return nn.BatchNorm1d(width), width
    return (nn.ReLU() if name == "relu" else nn.Tanh()), width
