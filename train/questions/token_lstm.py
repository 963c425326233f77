"""An LSTM or GRU over a question's cached token states."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from train.components.ranges import Count, Share, Size
from train.inputs.specification import Encoded, Input, Tokens, Vector
from train.layers.positions import EmptyPosition
from train.layers.projection import Activation, Projection
from train.layers.recurrent import Cell, Direction, Ends, Recurrent

Read = Literal["last", "both", "all", "all_both"]


class TokenLstm(nn.Module):
    """Reads token states in their order; the vector is what the network ends with.

    `state`: "last" is the hidden state of the last layer, "both" that and its cell, "all" the
    hidden states of all layers, "all_both" those and their cells; with direction "both" each is
    there forwards, then backwards. Antol et al. 2015 (arXiv:1505.00468) read "all_both" of two
    layers: 2,048 of 512. Then dropout, a linear layer of width `projection` (0: none), and the
    activation. Its states are those of the last layer. Every distinct question is read once.
    """

    lane_options = ("dropout",)

    def __init__(
        self,
        given: Tokens,
        *,
        cell: Cell = "lstm",
        hidden: Size = 512,
        layers: Size = 1,
        direction: Direction = "forward",
        state: Read = "last",
        dropout: Share = 0.0,
        projection: Count = 0,
        activation: Activation = "none",
    ) -> None:
        super().__init__()
        if min(hidden, layers) < 1:
            raise ValueError(f"hidden is {hidden}, layers {layers}; expected at least 1 of both")
        if cell == "gru" and state in ("both", "all_both"):
            raise ValueError(
                f"state is {state!r}, and a GRU has no cell; expected 'last' or 'all', or an LSTM"
            )
        self.state = state
        self.empty = EmptyPosition(given.d)
        self.recurrent = Recurrent(given.d, hidden, cell=cell, layers=layers, direction=direction)
        width = self.recurrent.gives * (layers if state in ("all", "all_both") else 1)
        width *= 2 if state in ("both", "all_both") else 1
        self.projection = Projection(
            width, width=projection, activation=activation, dropout=dropout
        )
        self.gives = Vector(self.projection.d)
        self.states = Tokens(self.recurrent.gives, given.longest)

    def forward(self, question: Input) -> Encoded:
        rows = self.empty(question)
        states, ends = self.recurrent(rows)
        vector = self.projection(rows.share(self._read(ends)))
        return Encoded(vector, Input(states, rows.mask, rows.index))

    def _read(self, ends: Ends) -> torch.Tensor:
        read = list(ends.hidden if self.state in ("all", "all_both") else self._top(ends.hidden))
        if self.state == "both":
            read += self._top(ends.cell)
        elif self.state == "all_both":
            read += ends.cell
        return torch.cat(read, dim=1)

    def _top(self, states: list[torch.Tensor]) -> list[torch.Tensor]:
        """Those of the last layer."""
        return states[-self.recurrent.ways :]
