"""Which settings come next: a grid, or Optuna's proposals.

Optuna only proposes, in memory: each round's study is made anew from the trials of the rounds
before it, so proposals are a function of (sweep seed, round, those results) and nothing has to be
kept but the trials themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from train.config.seeds import derive_seed
from train.sweep.space import Choice, Dimension, Space, number_text

Sampler = Literal["grid", "random", "tpe"]
Params = Mapping[str, str]  # dotted key -> value as an override's text
ROUNDS = 4  # TPE learns at least so often
TPE_STARTS_AFTER = 1  # results: from the second round on, however few trials a round has
FEWEST_FOR_IMPORTANCE = 4


@dataclass(frozen=True)
class Told:
    """What a finished trial tells: its accuracy on the selection part, None where it diverged."""

    params: Params
    value: float | None
    pruned_at: int | None = None  # epoch


def grid(space: Space) -> list[Params]:
    """Every combination; the last key varies fastest."""
    choices = [d for d in space.dimensions if isinstance(d, Choice)]
    keys = [choice.key for choice in choices]
    return [
        dict(zip(keys, values, strict=True))
        for values in itertools.product(*(choice.values for choice in choices))
    ]


def round_bounds(sampler: Sampler, trials: int, lanes: int) -> list[tuple[int, int]]:
    """Trials that are proposed together. Only TPE looks at results, so only it has rounds."""
    size = trials if sampler != "tpe" else max(1, min(lanes, -(-trials // ROUNDS)))
    return [(start, min(trials, start + size)) for start in range(0, trials, size)]


def propose(
    space: Space, sampler: Sampler, *, seed: int, first: int, count: int, told: Sequence[Told]
) -> list[Params]:
    """Settings of the trials from number `first` on.

    Args:
        told: the trials of the rounds before, in the order of their numbers.
    """
    if sampler == "grid":
        return grid(space)[first : first + count]
    draw = derive_seed(seed, "proposals", first) % 2**32
    made: optuna.samplers.BaseSampler = (
        optuna.samplers.RandomSampler(seed=draw)
        if sampler == "random"
        else optuna.samplers.TPESampler(seed=draw, n_startup_trials=TPE_STARTS_AFTER)
    )
    study = _study(space, told, made)
    distributions = {d.key: _distribution(d) for d in space.dimensions}
    asked = [study.ask(distributions) for _ in range(count)]
    return [{d.key: _text(d, trial.params[d.key]) for d in space.dimensions} for trial in asked]


def importance(space: Space, told: Sequence[Told]) -> tuple[dict[str, float] | None, str | None]:
    """How much each key decides whether a trial is among the best (PED-ANOVA, arXiv:2304.10255);
    shares of 1, or None and the reason."""
    finished = [trial for trial in told if trial.value is not None and trial.pruned_at is None]
    if len(finished) < FEWEST_FOR_IMPORTANCE:
        return (
            None,
            f"needs {FEWEST_FOR_IMPORTANCE} finished trials at least, found {len(finished)}",
        )
    if len({trial.value for trial in finished}) == 1:
        return None, "all finished trials have the same accuracy"
    study = _study(space, finished, optuna.samplers.RandomSampler(seed=0))
    try:
        found = optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError) as error:
        return None, str(error)
    return {key: float(share) for key, share in found.items()}, None


def _study(
    space: Space, told: Sequence[Told], sampler: optuna.samplers.BaseSampler
) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {d.key: _distribution(d) for d in space.dimensions}
    for trial in told:
        pruned = trial.pruned_at is not None
        value = trial.value or 0.0  # a trial that diverged counts as one that is never right
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
                params={d.key: _value(d, trial.params[d.key]) for d in space.dimensions},
                distributions=distributions,
                value=None if pruned else value,
                intermediate_values={trial.pruned_at: value} if trial.pruned_at else {},
            )
        )
    return study


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    if dimension.whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _text(dimension: Dimension, value: Any) -> str:
    return value if isinstance(dimension, Choice) else number_text(value, dimension.whole)


def _value(dimension: Dimension, text: str) -> Any:
    if isinstance(dimension, Choice):
        return text
    return int(text) if dimension.whole else float(text)
