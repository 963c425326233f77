"""The form with lanes that every model has: each lane in its turn."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from train.config.seeds import default_generator
from train.inputs.specification import Input
from train.lanes.layers import Streams, stacked


class EachLane(nn.Module):
    """K models whose parameters are stacked, lanes first, and which compute one after another.

    They share the batch and the optimiser's update; a lane's step is that of its single run, as
    each draws its dropout from its own stream. Gradients come by `backward()`. Buffers (running
    statistics) are stacked as well, unless all models hold one in the same memory.

    Attributes:
        shares: what tells lanes' streams apart: each has its own.
    """

    not_captured = "lanes take turns at the random state, which a graph would not exchange"

    def __init__(self, models: Sequence[nn.Module]) -> None:
        """
        Args:
            models: of one shape; options that change no shape may differ.
        """
        super().__init__()
        self.shares = [float(lane) for lane in range(len(models))]
        self.streams: Streams | None = None
        self._names = [[name for name, _ in model.named_parameters()] for model in models]
        self._buffer_names = [[name for name, _ in model.named_buffers()] for model in models]
        rows = zip(*(model.parameters() for model in models), strict=True)
        self.values = nn.ParameterList(stacked(row) for row in rows)
        self._shared: list[bool] = []
        for place, row in enumerate(zip(*(model.buffers() for model in models), strict=True)):
            shared = len({tensor.data_ptr() for tensor in row}) == 1 and row[0].numel() > 0
            self._shared.append(shared)
            self.register_buffer(f"buffer_{place}", row[0] if shared else torch.stack(row))
        self._templates = [_without_tensors(model) for model in models]  # in no module list: bare

    def forward(self, inputs: Mapping[str, Input], lanes: slice = slice(None)) -> torch.Tensor:
        """What every lane of some says, [lanes, ...]."""
        chosen = range(len(self._templates))[lanes]
        return torch.stack([self._one(lane, inputs) for lane in chosen])

    def keep(self, lanes: torch.Tensor) -> None:
        """Go on with some of the lanes, int64 [k]; parameters are left to the caller."""
        chosen = lanes.tolist()
        self.shares = [self.shares[lane] for lane in chosen]
        self._names = [self._names[lane] for lane in chosen]
        self._buffer_names = [self._buffer_names[lane] for lane in chosen]
        self._templates = [self._templates[lane] for lane in chosen]
        for place, shared in enumerate(self._shared):
            if not shared:
                name = f"buffer_{place}"
                setattr(self, name, self.get_buffer(name)[lanes])

    def _one(self, lane: int, inputs: Mapping[str, Input]) -> torch.Tensor:
        pairs = zip(self._names[lane], self.values, strict=True)
        tensors = {name: _of_lane(value, lane) for name, value in pairs}
        for place, name in enumerate(self._buffer_names[lane]):
            buffer = self.get_buffer(f"buffer_{place}")
            tensors[name] = buffer if self._shared[place] else buffer[lane]
        template = self._templates[lane].train(self.training)
        with self._drawing(lane):
            said: torch.Tensor = functional_call(template, tensors, (inputs,))
        return said

    @contextmanager
    def _drawing(self, lane: int) -> Iterator[None]:
        """The global random state is that of the lane's stream; it is as before afterwards."""
        if not self.training:
            yield
            return
        assert self.streams is not None
        stream = self.streams.members[self.streams.number[lane]][1]
        own = default_generator(stream.device)
        before = own.get_state()
        own.set_state(stream.get_state())
        yield
        stream.set_state(own.get_state())
        own.set_state(before)


def _of_lane(value: nn.Parameter, lane: int) -> torch.Tensor:
    """A lane's own part of a parameter. Its gradient is put into the lane's part of the whole:
    that of an index would be as large as all lanes, for every lane."""
    own = value.detach()[lane]
    if value.requires_grad and torch.is_grad_enabled():
        own.requires_grad_()
        own.register_post_accumulate_grad_hook(partial(_hand_back, value, lane))
    return own


def _hand_back(value: nn.Parameter, lane: int, own: torch.Tensor) -> None:
    if value.grad is None:
        value.grad = torch.zeros_like(value)
    assert own.grad is not None
    value.grad[lane].add_(own.grad)
    own.grad = None


def _without_tensors(model: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers take no memory: `functional_call` puts a lane's there."""
    memo: dict[int, Any] = {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    return copy.deepcopy(model, memo)
