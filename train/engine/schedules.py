"""Learning-rate schedules.

A schedule is a function of the step alone: (steps done, from 0) -> factor on the learning rate. Its
factory is given the steps of the run, and where it asks for them its epochs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from train.components.ranges import Count, NonNegative, Positive, Range

SCHEDULES: dict[str, str] = {
    "constant": "train.engine.schedules:constant",
    "linear": "train.engine.schedules:linear",
    "cosine": "train.engine.schedules:cosine",
    "step": "train.engine.schedules:step",
    "exponential": "train.engine.schedules:exponential",
}
Schedule = Callable[[int], float]
Factor = Annotated[float, Range(above=0, most=1)]


def constant(total_steps: int, *, warmup_steps: Count = 0) -> Schedule:
    """1 after a linear warm-up."""
    return _after_warmup(total_steps, warmup_steps, lambda _: 1.0)


def linear(total_steps: int, *, warmup_steps: Count = 0, final: NonNegative = 0.0) -> Schedule:
    """From 1 in a straight line to `final`, which the step after the last would have."""
    length = max(1, total_steps - warmup_steps)
    return _after_warmup(total_steps, warmup_steps, lambda n: 1 - (1 - final) * (n / length))


def cosine(total_steps: int, *, warmup_steps: Count = 0, final: NonNegative = 0.0) -> Schedule:
    """From 1 to `final` along half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    length = max(1, total_steps - warmup_steps)
    return _after_warmup(
        total_steps,
        warmup_steps,
        lambda n: final + (1 - final) * (1 + math.cos(math.pi * (n / length))) / 2,
    )


def step(
    total_steps: int, epochs: int, *, every: Positive, factor: Factor, warmup_steps: Count = 0
) -> Schedule:
    """Times `factor` after each `every` epochs, counted from the end of the warm-up."""
    length = max(1, round(every * total_steps / epochs))
    return _after_warmup(total_steps, warmup_steps, lambda n: factor ** (n // length))


def exponential(total_steps: int, *, factor: Factor, warmup_steps: Count = 0) -> Schedule:
    """Times `factor` after each step."""
    return _after_warmup(total_steps, warmup_steps, lambda n: factor**n)


def _after_warmup(total_steps: int, warmup_steps: int, shape: Callable[[int], float]) -> Schedule:
    """A linear warm-up, then a function of the steps since its end."""
    if warmup_steps > total_steps:
        raise ValueError(
            f"warmup_steps is {warmup_steps}; expected at most {total_steps}, the steps of the run"
        )

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return shape(step - warmup_steps)

    return factor
