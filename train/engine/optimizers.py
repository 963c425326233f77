"""Optimisers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from train.components.ranges import NonNegative, Positive, Share

OPTIMIZERS: dict[str, str] = {
    "adamw": "train.engine.optimizers:AdamW",
    "adam": "train.engine.optimizers:Adam",
    "sgd": "train.engine.optimizers:Sgd",
    "rmsprop": "train.engine.optimizers:RmsProp",
}


class Optimizer(ABC):
    """Updates a model's parameters from their gradients.

    Over the fused kernels that torch.optim calls, with its numbers to the bit: torch.optim itself
    imports the compiler on first use, 1.6 s that every run would wait for.
    """

    def __init__(self, model: nn.Module, lr: float, weight_decay: float) -> None:
        """Matrices decay; biases, batch-norm weights and the cosine head's scale do not."""
        self.lr = lr
        parameters = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in parameters if p.ndim >= 2]
        vectors = [p for p in parameters if p.ndim < 2]
        self.groups = [(matrices, weight_decay), (vectors, 0.0)]
        self.state: dict[str, torch.Tensor] = {}

    def clear_gradients(self) -> None:
        """Forget the gradients."""
        for parameters, _ in self.groups:
            for parameter in parameters:
                parameter.grad = None

    @torch.no_grad()
    def step(self, lr: torch.Tensor, found_inf: torch.Tensor | None = None) -> None:
        """One update. A parameter without a gradient stays.

        Args:
            lr: a float32 scalar on the parameters' device: a CUDA graph would keep a number as it
                was at the capture.
            found_inf: float32 scalar on that device; 1 leaves everything as it is.
        """
        for number, (parameters, weight_decay) in enumerate(self.groups):
            updated = [(f"{number}.{i}", p) for i, p in enumerate(parameters) if p.grad is not None]
            if updated:
                names, chosen = zip(*updated, strict=True)
                gradients = [p.grad for p in chosen if p.grad is not None]
                self._update(names, list(chosen), gradients, lr, weight_decay, found_inf)

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take up a state as `state` holds it, in memory of its own beside the parameters."""
        device = next(p.device for parameters, _ in self.groups for p in parameters)
        self.state = {name: value.to(device, copy=True) for name, value in state.items()}

    @abstractmethod
    def _update(
        self,
        names: Sequence[str],
        parameters: list[torch.Tensor],
        gradients: list[torch.Tensor],
        lr: torch.Tensor,
        weight_decay: float,
        found_inf: torch.Tensor | None,
    ) -> None: ...

    def _state(
        self, kind: str, names: Sequence[str], parameters: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """A tensor per parameter, of its shape ("step": a scalar); zeros at first."""
        for name, parameter in zip(names, parameters, strict=True):
            if f"{name}.{kind}" not in self.state:
                like = parameter.new_zeros(()) if kind == "step" else torch.zeros_like(parameter)
                self.state[f"{name}.{kind}"] = like
        return [self.state[f"{name}.{kind}"] for name in names]


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980); weight decay is added to the gradient."""

    lane_form = "train.lanes.optimizer:LaneAdam"
    lane_options = ("lr", "weight_decay")

    kernel: Callable[..., None] = staticmethod(torch._fused_adam_)

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: Positive,
        weight_decay: NonNegative = 0.0,
        beta1: Share = 0.9,
        beta2: Share = 0.999,
        eps: Positive = 1e-8,
    ) -> None:
        super().__init__(model, lr, weight_decay)
        self.options = {"beta1": beta1, "beta2": beta2, "eps": eps}

    def _update(
        self,
        names: Sequence[str],
        parameters: list[torch.Tensor],
        gradients: list[torch.Tensor],
        lr: torch.Tensor,
        weight_decay: float,
        found_inf: torch.Tensor | None,
    ) -> None:
        steps = self._state("step", names, parameters)
        torch._foreach_add_(steps, 1)
        self.kernel(
            parameters,
            gradients,
            self._state("exp_avg", names, parameters),
            self._state("exp_avg_sq", names, parameters),
            [],
            steps,
            lr=lr,
            weight_decay=weight_decay,
            amsgrad=False,
            maximize=False,
            found_inf=found_inf,
            **self.options,
        )
        if found_inf is not None:
            torch._foreach_sub_(steps, [found_inf] * len(steps))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101)."""

    lane_form = "train.lanes.optimizer:LaneAdamW"

    kernel = staticmethod(torch._fused_adamw_)

    def __init__(
        self, model: nn.Module, *, weight_decay: NonNegative = 0.01, **options: float
    ) -> None:
        super().__init__(model, weight_decay=weight_decay, **options)


class Sgd(Optimizer):
    """Stochastic gradient descent with momentum; weight decay is added to the gradient."""

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: Positive,
        weight_decay: NonNegative = 0.0,
        momentum: Share = 0.9,
        nesterov: bool = False,
    ) -> None:
        if nesterov and not momentum:
            raise ValueError("nesterov needs a momentum above 0")
        super().__init__(model, lr, weight_decay)
        self.momentum = momentum
        self.nesterov = nesterov

    def _update(
        self,
        names: Sequence[str],
        parameters: list[torch.Tensor],
        gradients: list[torch.Tensor],
        lr: torch.Tensor,
        weight_decay: float,
        found_inf: torch.Tensor | None,
    ) -> None:
        torch._fused_sgd_(  # type: ignore[call-overload]  # a union of its overloads
            parameters,
            gradients,
            self._state("momentum", names, parameters) if self.momentum else [],
            weight_decay=weight_decay,
            momentum=self.momentum,
            lr=lr,
            dampening=0.0,
            nesterov=self.nesterov,
            maximize=False,
            found_inf=found_inf,
            is_first_step=False,  # momentum begins at zero: the first step is like any other
        )


class RmsProp(Optimizer):
    """Gradients divided by the root of their running mean square, to which `eps` is added (Tieleman
    and Hinton 2012, lecture 6.5); weight decay is added to the gradient."""

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: Positive,
        weight_decay: NonNegative = 0.0,
        alpha: Share = 0.99,
        eps: Positive = 1e-8,
    ) -> None:
        super().__init__(model, lr, weight_decay)
        self.alpha = alpha
        self.eps = eps

    def _update(
        self,
        names: Sequence[str],
        parameters: list[torch.Tensor],
        gradients: list[torch.Tensor],
        lr: torch.Tensor,
        weight_decay: float,
        found_inf: torch.Tensor | None,
    ) -> None:
        squares = self._state("square", names, parameters)
        for parameter, gradient, square in zip(parameters, gradients, squares, strict=True):
            if weight_decay:
                gradient = gradient.add(parameter, alpha=weight_decay)
            mean = (square * self.alpha).addcmul_(gradient, gradient, value=1 - self.alpha)
            update = gradient / mean.sqrt().add_(self.eps) * lr
            if found_inf is not None:  # an overflow changes nothing; times 0 would make NaN of it
                mean = torch.where(found_inf > 0, square, mean)
                update = torch.where(found_inf > 0, 0.0, update)
            square.copy_(mean)
            parameter.sub_(update)
