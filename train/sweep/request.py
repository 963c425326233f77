"""What was asked for, and the trials that come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from train.config.schema import Config
from train.errors import ConfigError
from train.sweep.pack import Pruner
from train.sweep.propose import Params, Sampler, Told, propose
from train.sweep.space import Space


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        trials: of each experiment.
        lanes: how many trials share a pass at most.
        winners: how many trials of each experiment are trained again, alone.
    """

    space: Space
    sampler: Sampler
    pruner: Pruner
    trials: int
    seed: int
    lanes: int
    winners: int


@dataclass(frozen=True)
class Trial:
    """Settings with a number; numbers run through all experiments."""

    number: int
    experiment: str
    params: Params
    config: Config


def next_trials(
    request: Request, name: str, start: int, bounds: tuple[int, int], told: Sequence[Told]
) -> list[Trial]:
    """Proposals of one round. Raises ConfigError for values that do not go together."""
    first, last = bounds
    proposed = propose(
        request.space,
        request.sampler,
        seed=request.seed,
        first=first,
        count=last - first,
        told=told,
    )
    trials = []
    for number, params in enumerate(proposed, start=start + first):
        try:
            config = request.space.experiment(name, params).config
        except ConfigError as error:
            chosen = " ".join(f"{key}={text}" for key, text in params.items())
            raise ConfigError([f"{line} (with {chosen})" for line in error.lines]) from None
        trials.append(Trial(number, name, params, config))
    return trials
