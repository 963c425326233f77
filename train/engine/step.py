"""The step engine: forward, loss, backward, update. It takes plain arguments and tensors.

It imports with torch alone and never knows about experiments or caches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from train.config.precisions import COMPUTE_TYPES, Precision
from train.config.seeds import default_generator, derive_seed
from train.engine.clipping import NO_CLIPPING, Clipping
from train.engine.optimizers import Optimizer
from train.engine.scaler import GradientScaler
from train.engine.schedules import Schedule
from train.inputs.shared_rows import whole
from train.inputs.specification import Batch, Input


class Engine(ABC):
    """One update of what is trained from one batch, on its device: of a model, or of all lanes.

    Weights stay in float32; with precision "bf16" or "fp16" matrix products run in that type.

    Attributes:
        rates: the type of what `rate` gives.
    """

    rates = torch.float32

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., torch.Tensor],
        optimizer: Any,
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
        self.clipped_norm: torch.Tensor | None = None  # before clipping, of the last update
        self.device = next(model.parameters()).device

    def __call__(
        self, inputs: Mapping[str, Input], targets: torch.Tensor, step: int
    ) -> torch.Tensor:
        """Update from a batch; returns its loss, which waits for no device."""
        self.start(step)
        return self.update(inputs, targets, self.rate(step))

    def rate(self, step: int) -> torch.Tensor:
        """`lr` as updates take it: a scalar, which a CUDA graph reads and an eager step too, so
        that a run may go on in either way to the same bytes."""
        return torch.full((), self.lr(step), dtype=self.rates, device=self.device)

    @property
    def loss_shape(self) -> tuple[int, ...]:
        """Of a step's loss."""
        return ()

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """What a step draws from beside the global random state."""
        return ()

    @abstractmethod
    def lr(self, step: int) -> float:
        """What an update is given of a step (from 0): its learning rate."""

    @abstractmethod
    def start(self, step: int) -> None:
        """Set the random state to what the step draws from."""

    @abstractmethod
    def update(
        self, inputs: Mapping[str, Input], targets: torch.Tensor, lr: torch.Tensor
    ) -> torch.Tensor:
        """The work of a step: what a CUDA graph captures; `lr` as `rate` gives it."""

    def gradients(self) -> list[torch.Tensor]:
        """The gradients of the last update."""
        return [p.grad for p in self.model.parameters() if p.grad is not None]

    def gradient_norm(self) -> torch.Tensor:
        """Length of the last update's gradient before it was clipped, a scalar that waits for no
        device."""
        if self.clipped_norm is not None:
            return self.clipped_norm
        return torch.nn.utils.get_total_norm(self.gradients())

    def state(self) -> dict[str, torch.Tensor]:
        """What goes on from step to step beside the model, by name."""
        return {**self.optimizer.state}


class TrainingStep(Engine):
    """One update of a model. Its dropout is a function of (seed, step)."""

    loss: nn.Module
    optimizer: Optimizer

    def __init__(
        self, model: nn.Module, loss: nn.Module, optimizer: Optimizer, *, seed: int, **how: Any
    ) -> None:
        """
        Args:
            how: schedule, precision, clipping, as an Engine takes them.
        """
        super().__init__(model, loss, optimizer, **how)
        self.seed = seed
        self.scaler = GradientScaler(self.device) if self.precision == "fp16" else None

    def lr(self, step: int) -> float:
        """The learning rate of a step (from 0)."""
        return self.optimizer.lr * self.schedule(step)

    def start(self, step: int) -> None:
        # torch.manual_seed formats a stack trace
        default_generator(self.device).manual_seed(derive_seed(self.seed, "step", step))

    def update(
        self, inputs: Mapping[str, Input], targets: torch.Tensor, lr: torch.Tensor
    ) -> torch.Tensor:
        self.model.train()
        loss = self.loss(forward(self.model, inputs, self.precision), targets)
        self.optimizer.clear_gradients()
        if self.scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
            self._clip()
            self.optimizer.step(lr)
        else:
            (loss * self.scaler.scale).backward()  # type: ignore[no-untyped-call]
            overflowed = self.scaler.unscale(self.gradients())
            self._clip()
            self.optimizer.step(lr, overflowed)
            self.scaler.update(overflowed)
        return loss.detach()

    def _clip(self) -> None:
        if self.clipping:
            self.clipped_norm = self.clipping(self.gradients())

    def leaves_out_overflows(self) -> bool:
        """Whether a step whose loss is not finite has changed nothing: in fp16, until the scale is
        so low that it is not to blame. This waits for the device."""
        return self.scaler is not None and float(self.scaler.scale) >= 1

    def state(self) -> dict[str, torch.Tensor]:
        scaler = {} if self.scaler is None else self.scaler.tensors()
        return {**super().state(), **scaler}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take up what `state` gave, from any device."""
        own = {} if self.scaler is None else self.scaler.tensors()
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self.optimizer.load({name: value for name, value in state.items() if name not in own})


class Steps(Protocol):
    """Steps of a training from the numbers of a batch's examples; nobody waits for the device."""

    def __call__(self, examples: torch.Tensor, step: int) -> None:
        """Train on examples, int64 [batch]."""

    def gradient_norm(self) -> torch.Tensor:
        """Length of the last step's gradient before it was clipped, a scalar."""

    def losses(self) -> list[Any]:
        """Of every step since the last call: numbers, or a list of each lane's. This does wait."""


class EagerSteps:
    """Steps that run as they are written."""

    def __init__(self, engine: Engine, batch: Callable[[torch.Tensor], Batch]) -> None:
        self.engine = engine
        self.batch = batch
        self._losses: list[torch.Tensor] = []

    def __call__(self, examples: torch.Tensor, step: int) -> None:
        self._losses.append(self.engine(*self.batch(examples), step))

    def gradient_norm(self) -> torch.Tensor:
        return self.engine.gradient_norm()

    def losses(self) -> list[Any]:
        values: list[Any] = torch.stack(self._losses).tolist()
        self._losses.clear()
        return values


def forward(model: nn.Module, inputs: Mapping[str, Input], precision: Precision) -> torch.Tensor:
    """Logits, float32 [batch, answers], computed in the given precision."""
    device = next(iter(inputs.values())).values.device.type
    kind = COMPUTE_TYPES[precision]
    with torch.autocast(device, dtype=kind, enabled=kind != torch.float32):
        logits: torch.Tensor = model(inputs)
    return whole(logits.float())
