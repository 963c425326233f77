"""Optimisers and learning-rate schedules.

A schedule is a function of the step alone: (steps done, from 0) -> factor on the learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from train.lookup import Factory, find_factory

OPTIMIZERS: dict[str, str] = {
    "adamw": "train.optimizers:adamw",
    "adam": "train.optimizers:adam",
    "sgd": "train.optimizers:sgd",
}
SCHEDULES: dict[str, str] = {
    "constant": "train.optimizers:constant",
    "linear": "train.optimizers:linear",
    "cosine": "train.optimizers:cosine",
}
Schedule = Callable[[int], float]


def lookup(name: str) -> Factory:
    """The optimiser of that name. Raises TrainError with the known ones."""
    return find_factory(OPTIMIZERS, name, "optimizer")


def lookup_schedule(name: str) -> Factory:
    """The schedule of that name. Raises TrainError with the known ones."""
    return find_factory(SCHEDULES, name, "schedule")


def adamw(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.01,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101)."""
    groups = parameter_groups(model, weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), eps=eps, fused=True)


def adam(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980); weight decay is added to the gradient."""
    groups = parameter_groups(model, weight_decay)
    return torch.optim.Adam(groups, lr=lr, betas=(beta1, beta2), eps=eps, fused=True)


def sgd(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum; weight decay is added to the gradient."""
    groups = parameter_groups(model, weight_decay)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; biases, batch-norm weights and the cosine head's scale do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def constant(total_steps: int, *, warmup_steps: int = 0) -> Schedule:
    """1 after a linear warm-up."""
    return _after_warmup(total_steps, warmup_steps, lambda _: 1.0)


def linear(total_steps: int, *, warmup_steps: int = 0, final: float = 0.0) -> Schedule:
    """From 1 straight down to `final`, which the step after the last would have."""
    return _after_warmup(total_steps, warmup_steps, lambda done: 1 - (1 - final) * done)


def cosine(total_steps: int, *, warmup_steps: int = 0, final: float = 0.0) -> Schedule:
    """From 1 to `final` along half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    return _after_warmup(
        total_steps,
        warmup_steps,
        lambda done: final + (1 - final) * (1 + math.cos(math.pi * done)) / 2,
    )


def _after_warmup(total_steps: int, warmup_steps: int, shape: Callable[[float], float]) -> Schedule:
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(
            f"warmup_steps is {warmup_steps}; expected 0 to {total_steps}, the steps of the run"
        )

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return shape((step - warmup_steps) / max(1, total_steps - warmup_steps))

    return factor
