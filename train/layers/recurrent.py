"""LSTM and GRU over rows of different lengths, without a wait and without padding's influence.

`nn.LSTM` needs the lengths of packed rows on the host, so that every step would wait for a GPU and
none could be captured in a CUDA graph. Here a row keeps its state where its mask is false. On the
CPU, where reading a length waits for nobody, rows that have ended are left out of the products.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn

from train.inputs.specification import Input

Cell = Literal["lstm", "gru"]
Direction = Literal["forward", "both"]
GATES = {"lstm": 4, "gru": 3}
State = tuple[torch.Tensor, torch.Tensor]  # of a GRU the second is not used


@dataclass(frozen=True)
class Ends:
    """The states after each row's last position, of every layer, and in it every direction.

    Attributes:
        hidden, cell: [u, hidden] each; the cell is an LSTM's.
    """

    hidden: list[torch.Tensor]
    cell: list[torch.Tensor]


class Recurrent(nn.Module):
    """The arithmetic and initial weights of `nn.LSTM` (Hochreiter and Schmidhuber 1997) and
    `nn.GRU` (Cho et al. 2014, arXiv:1406.1078) on each row alone.

    Attributes:
        gives: width of a state of the last layer, all directions side by side.
    """

    def __init__(
        self, width: int, hidden: int, *, cell: Cell, layers: int, direction: Direction
    ) -> None:
        super().__init__()
        self.ways = 2 if direction == "both" else 1
        self.gives = hidden * self.ways
        widths = [width] + [self.gives] * (layers - 1)
        self.runs = nn.ModuleList(
            Run(own, hidden, cell=cell, backwards=bool(way))
            for own in widths
            for way in range(self.ways)
        )

    def forward(self, rows: Input) -> tuple[torch.Tensor, Ends]:
        """Values [u, t, d] -> states of the last layer [u, t, gives], and where rows end."""
        x, mask = rows.values, rows.mask
        live, back = [x.shape[0]] * x.shape[1], None
        if mask is not None and x.device.type == "cpu" and not torch.compiler.is_exporting():
            places = torch.arange(1, x.shape[1] + 1)
            length, order = (mask * places).amax(dim=1).sort(descending=True, stable=True)
            live = (length[:, None] >= places).sum(dim=0).tolist()
            x, mask, back = x[order], mask[order], order.argsort()
        ends = Ends([], [])
        runs = list(cast(Iterable[Run], self.runs))
        for first in range(0, len(runs), self.ways):
            found = [run(x, mask, live) for run in runs[first : first + self.ways]]
            x = torch.cat([states for states, _ in found], dim=2)
            ends.hidden.extend(hidden for _, (hidden, _) in found)
            ends.cell.extend(cell for _, (_, cell) in found)
        if back is None:
            return x, ends
        return x[back], Ends([one[back] for one in ends.hidden], [one[back] for one in ends.cell])


class Run(nn.Module):
    """One layer in one direction."""

    def __init__(self, width: int, hidden: int, *, cell: Cell, backwards: bool) -> None:
        super().__init__()
        self.cell = cell
        self.backwards = backwards
        self.input = nn.Linear(width, GATES[cell] * hidden)
        self.state = nn.Linear(hidden, GATES[cell] * hidden)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden))

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None, live: list[int]
    ) -> tuple[torch.Tensor, State]:
        """[u, t, d], of which at position i the first `live[i]` rows have not ended -> states
        [u, t, hidden] and the last one."""
        # by position: the gradient of a slice of all positions would be as large as all, each time
        inputs = self.input(x.transpose(0, 1)).unbind(0)
        # float32 at least: cells are sums over positions
        kind = torch.promote_types(inputs[0].dtype, torch.float32)
        hidden = x.new_zeros((x.shape[0], self.state.in_features), dtype=kind)
        cell, states = hidden, [hidden] * x.shape[1]
        step = self._lstm if self.cell == "lstm" else self._gru
        places = range(x.shape[1])
        for place in reversed(places) if self.backwards else places:
            n = live[place]
            there = None if mask is None else mask[:n, place, None]
            new = step(inputs[place][:n], hidden[:n], cell[:n])
            hidden = _renewed(hidden, new[0], there)
            cell = _renewed(cell, new[1], there) if self.cell == "lstm" else cell
            states[place] = hidden
        return torch.stack(states, dim=1), (hidden, cell)

    def _lstm(self, inputs: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor) -> State:
        """The next hidden state and cell; gates in the order of `nn.LSTM`."""
        let_in, keep, new, let_out = (inputs + self.state(hidden)).chunk(4, dim=1)
        cell = keep.sigmoid() * cell + let_in.sigmoid() * new.tanh()
        return let_out.sigmoid() * cell.tanh(), cell

    def _gru(self, inputs: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor) -> State:
        """The next hidden state; gates in the order of `nn.GRU`."""
        reset_in, keep_in, new_in = inputs.chunk(3, dim=1)
        reset, keep, new = self.state(hidden).chunk(3, dim=1)
        reset, keep = (reset_in + reset).sigmoid(), (keep_in + keep).sigmoid()
        new = (new_in + reset * new).tanh()
        return new + keep * (hidden - new), cell


def _renewed(old: torch.Tensor, new: torch.Tensor, there: torch.Tensor | None) -> torch.Tensor:
    """The first rows of [u, d] replaced where something is there."""
    n = new.shape[0]
    new = new if there is None else torch.where(there, new, old[:n])
    return new if n == old.shape[0] else torch.cat([new, old[n:]])
