"""One update of every lane from one batch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import cast

import torch
from torch import nn

from train.config.precisions import Precision
from train.engine.clipping import NO_CLIPPING, Clipping
from train.engine.schedules import Schedule
from train.engine.step import forward
from train.inputs.specification import Input
from train.lanes.loss import LaneCrossEntropy
from train.lanes.optimizer import LaneAdam
from train.lanes.stack import LaneModel


class LaneStep:
    """What `train.engine.step.TrainingStep` does, for K models at once.

    No lane reads another's numbers, so one that diverges does not change the others by a bit: it
    is marked in `finite` and its own numbers stop making sense.

    Attributes:
        finite: bool [lanes], whether all losses of a lane were finite so far.
    """

    def __init__(
        self,
        model: LaneModel,
        loss: LaneCrossEntropy,
        optimizer: LaneAdam,
        *,
        schedule: Schedule,
        precision: Precision = "fp32",
        clipping: Clipping = NO_CLIPPING,
    ) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.schedule = schedule
        self.precision = precision
        self.clipping = clipping
        self.finite = torch.ones(len(model.seeds), dtype=torch.bool, device=optimizer.lr.device)

    def __call__(
        self, inputs: Mapping[str, Input], targets: torch.Tensor, step: int
    ) -> torch.Tensor:
        """Update all lanes; returns the batch's losses [lanes], which wait for no device."""
        self.model.start(step)
        self.model.train()
        for parameter in self.optimizer.parameters:
            parameter.grad = None
        found = []
        for lanes in self.model.turns:
            model = cast(nn.Module, partial(self.model, lanes=lanes))
            losses = self.loss(forward(model, inputs, self.precision), targets, lanes)
            losses.sum().backward()  # type: ignore[no-untyped-call]
            found.append(losses.detach())
        if self.clipping:
            gradients = [p.grad for p in self.optimizer.parameters if p.grad is not None]
            self.clipping.lanes(gradients)
        self.optimizer.step(self.schedule(step))
        told = torch.cat(found)
        self.finite &= told.isfinite()
        return told

    def keep(self, lanes: torch.Tensor) -> None:
        """Go on with some of the lanes, int64 [k], in this order."""
        for part in (self.model, self.loss, self.optimizer):
            part.keep(lanes)
        self.finite = self.finite[lanes]
