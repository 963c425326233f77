"""One update of every lane from one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from train.engine.step import Engine, forward
from train.inputs.specification import Input
from train.lanes.loss import LaneCrossEntropy
from train.lanes.optimizer import LaneAdam
from train.lanes.stack import LaneModel


class LaneStep(Engine):
    """What `train.engine.step.TrainingStep` does, for K models at once; `lr` is the factor of every
    lane's rate.

    No lane reads another's numbers, so one that diverges does not change the others by a bit: it
    is marked in `finite` and its own numbers stop making sense.

    Attributes:
        finite: bool [lanes], whether all losses of a lane were finite so far.
    """

    model: LaneModel
    loss: LaneCrossEntropy
    optimizer: LaneAdam
    rates = torch.float64

    def __init__(
        self, model: LaneModel, loss: LaneCrossEntropy, optimizer: LaneAdam, **how: Any
    ) -> None:
        """
        Args:
            how: schedule, precision, clipping, as an Engine takes them.
        """
        super().__init__(model, loss, optimizer, **how)
        self.finite = torch.ones(len(model.seeds), dtype=torch.bool, device=self.device)

    @property
    def loss_shape(self) -> tuple[int, ...]:
        return (len(self.finite),)

    @property
    def generators(self) -> Sequence[torch.Generator]:
        return self.model.generators

    def lr(self, step: int) -> float:
        return self.schedule(step)

    def start(self, step: int) -> None:
        self.model.start(step)

    def update(
        self, inputs: Mapping[str, Input], targets: torch.Tensor, lr: torch.Tensor
    ) -> torch.Tensor:
        self.model.train()
        self.optimizer.clear_gradients()
        found = []
        for lanes in self.model.turns:
            model = cast(nn.Module, partial(self.model, lanes=lanes))
            losses = self.loss(forward(model, inputs, self.precision), targets, lanes)
            losses.sum().backward()  # type: ignore[no-untyped-call]
            found.append(losses.detach())
        if self.clipping:
            self.clipping.lanes(self.gradients())
        self.optimizer.step(lr)
        told = torch.cat(found)
        self.finite &= told.isfinite()
        return told

    def state(self) -> dict[str, torch.Tensor]:
        return {**super().state(), "finite": self.finite}

    def keep(self, lanes: torch.Tensor) -> None:
        """Go on with some of the lanes, int64 [k], in this order."""
        for part in (self.model, self.loss, self.optimizer):
            part.keep(lanes)
        self.finite = self.finite[lanes]
