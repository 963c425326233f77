"""One update of every lane from one batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from train.config.precisions import Precision
from train.engine.optimizers import Schedule
from train.engine.step import forward
from train.inputs.specification import Input
from train.lanes.loss import LaneCrossEntropy
from train.lanes.optimizer import LaneAdamW
from train.lanes.stack import LaneModel


class LaneStep:
    """What `train.step.TrainingStep` does, for K models at once.

    No lane reads another's numbers, so one that diverges does not change the others by a bit: it
    is marked in `finite` and its own numbers stop making sense.

    Attributes:
        finite: bool [lanes], whether all losses of a lane were finite so far.
    """

    def __init__(
        self,
        model: LaneModel,
        loss: LaneCrossEntropy,
        optimizer: LaneAdamW,
        *,
        schedule: Schedule,
        precision: Precision = "fp32",
    ) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.schedule = schedule
        self.precision = precision
        self.finite = torch.ones(len(model.seeds), dtype=torch.bool, device=optimizer.lr.device)

    def __call__(
        self, inputs: Mapping[str, Input], targets: torch.Tensor, step: int
    ) -> torch.Tensor:
        """Update all lanes; returns the batch's losses [lanes], which wait for no device."""
        self.model.start(step)
        self.model.train()
        losses = self.loss(forward(self.model, inputs, self.precision), targets)
        for parameter in self.optimizer.parameters:
            parameter.grad = None
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(self.schedule(step))
        self.finite &= losses.detach().isfinite()
        return losses.detach()

    def keep(self, lanes: torch.Tensor) -> None:
        """Go on with some of the lanes, int64 [k], in this order."""
        for part in (self.model, self.loss, self.optimizer):
            part.keep(lanes)
        self.finite = self.finite[lanes]
