"""K layers of one shape as one. Inputs are [batch, width], shared by all lanes, or
[lanes, batch, width]; outputs have lanes first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional

from train.layers.dropout import kept, scale_of


class LaneLinear(nn.Module):
    """K linear layers: weight [lanes, out, in], bias [lanes, out].

    On a shared input they are one matrix product, which reads the input once.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = stacked([layer.weight for layer in layers])
        self.bias = stacked([layer.bias for layer in layers])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim == 3:
            return torch.baddbmm(self.bias[:, None], x, self.weight.transpose(1, 2))
        lanes, width, _ = self.weight.shape
        joined = functional.linear(x, self.weight.flatten(0, 1), self.bias.flatten())
        return joined.view(len(x), lanes, width).transpose(0, 1)


class LaneBatchNorm(nn.Module):
    """K batch normalisations with their own statistics; lanes are further features of one."""

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, layers: Sequence[nn.BatchNorm1d]) -> None:
        super().__init__()
        first = layers[0]
        assert first.momentum is not None
        self.momentum, self.eps = first.momentum, first.eps
        self.weight = stacked([layer.weight for layer in layers])
        self.bias = stacked([layer.bias for layer in layers])
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, torch.stack([getattr(layer, name) for layer in layers]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lanes, width = self.weight.shape
        if x.ndim == 2:
            x = x.expand(lanes, *x.shape)
        joined = functional.batch_norm(
            x.transpose(0, 1).reshape(-1, lanes * width),
            self.running_mean.view(-1),
            self.running_var.view(-1),
            self.weight.view(-1),
            self.bias.view(-1),
            self.training,
            self.momentum,
            self.eps,
        )
        return joined.view(-1, lanes, width).transpose(0, 1)

    def keep(self, lanes: torch.Tensor) -> None:
        """Go on with some of the lanes, int64 [k]; parameters are left to the caller."""
        self.running_mean = self.running_mean[lanes]
        self.running_var = self.running_var[lanes]


class LaneDropout(nn.Module):
    """K dropouts, each with its own share of zeros and its lane's stream of random numbers."""

    def __init__(self, shares: Sequence[float]) -> None:
        super().__init__()
        self.shares = list(shares)
        self.streams: Streams | None = None
        self._scales: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not any(self.shares):
            return x
        assert self.streams is not None
        masks = [self._mask(lanes[0], x, stream) for lanes, stream in self.streams.members]
        if len(masks) == 1:
            return (x * masks[0]).mul_(scale_of(self.shares[0]))
        if self._scales is None:  # once: copying them makes the CPU wait for a GPU
            self._scales = torch.tensor([scale_of(share) for share in self.shares], device=x.device)
        masked = x * torch.stack([masks[number] for number in self.streams.number])
        return masked.mul_(self._scales[:, None, None])  # in float32, then rounded to the type of x

    def keep(self, lanes: torch.Tensor) -> None:
        """Go on with some of the lanes, int64 [k]."""
        self.shares = [self.shares[lane] for lane in lanes.tolist()]
        self._scales = None

    def _mask(self, lane: int, x: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
        share = self.shares[lane]
        if not share:  # a single model with this share has no such layer, and draws nothing
            return x.new_ones(x.shape[-2:])
        return kept(x[0] if x.ndim == 3 else x, share, stream)


class Draws(Protocol):
    """What draws from the streams: its lanes share one where seed and shares are the same."""

    shares: list[float]
    streams: Streams | None


class Streams:
    """The random streams of a step, one for all lanes of the same seed and shares of dropout.

    Attributes:
        members: of each stream, its lanes and its generator.
        number: the stream of each lane.
    """

    def __init__(
        self, seeds: Sequence[int], dropouts: Sequence[Draws], device: torch.device
    ) -> None:
        kinds = [
            (seed, *(dropout.shares[lane] for dropout in dropouts))
            for lane, seed in enumerate(seeds)
        ]
        distinct = list(dict.fromkeys(kinds))
        self.number = [distinct.index(kind) for kind in kinds]
        self.seeds = [int(kind[0]) for kind in distinct]
        self.members = [
            ([lane for lane, of in enumerate(self.number) if of == number], torch.Generator(device))
            for number in range(len(distinct))
        ]
        for dropout in dropouts:
            dropout.streams = self


def stacked(parameters: Sequence[torch.Tensor]) -> nn.Parameter:
    """K parameters as one, lanes first."""
    together = torch.stack([parameter.detach() for parameter in parameters])
    return nn.Parameter(together, requires_grad=parameters[0].requires_grad)
