"""What a sweep varies: `KEY=V1,V2`, `KEY=log:LO:HI` and `KEY=uniform:LO:HI`, checked before
anything is loaded. A `KEY=VALUE` is set for every trial."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from train.config.files import load_experiment
from train.config.keys import flatten
from train.config.schema import Experiment
from train.errors import ConfigError
from vqa_cache.experiments import parse_value

_RANGE = re.compile(r"(log|uniform):([^:]*):([^:]*)")
_COMMA = re.compile(r",(?![^\[]*\])")  # but not one in brackets
DATA_KEYS = ("features.", "answers.", "data_seed", "load", "train.precision", "train.overfit")


@dataclass(frozen=True)
class Choice:
    """A key with a list of values, as typed."""

    key: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.values)


@dataclass(frozen=True)
class Range:
    """A key with all numbers from `low` to `high`; `whole` where the key takes whole ones."""

    key: str
    low: float
    high: float
    log: bool
    whole: bool = False

    def __str__(self) -> str:
        return f"{'log' if self.log else 'uniform'}:{self.low!r}:{self.high!r}"


Dimension = Choice | Range


@dataclass(frozen=True)
class Space:
    """Experiments, what is set for all of their trials ("KEY=VALUE"), and what varies."""

    experiments: tuple[str, ...]
    fixed: tuple[str, ...]
    dimensions: tuple[Dimension, ...]

    @property
    def grid_size(self) -> int | None:
        """How many settings there are; None with a range."""
        if any(isinstance(dimension, Range) for dimension in self.dimensions):
            return None
        return math.prod(len(d.values) for d in self.dimensions if isinstance(d, Choice))

    def experiment(self, name: str, params: Mapping[str, str], *more: str) -> Experiment:
        """An experiment with a trial's values. Raises ConfigError."""
        chosen = (f"{key}={text}" for key, text in params.items())
        return load_experiment(name, [*self.fixed, *chosen, *more])


def parse_space(words: Sequence[str]) -> Space:
    """Experiments and what varies, from the words of a command.

    Raises:
        ConfigError: everything that is wrong with them, one line each.
    """
    names = tuple(word for word in words if "=" not in word)
    settings = [word.partition("=") for word in words if "=" in word]
    lines = [] if names else ["no experiment named; python -m train --list shows them"]
    keys = [key for key, _, _ in settings]
    lines += [
        f"{key} is set twice; set it once" for key in sorted(set(keys)) if keys.count(key) > 1
    ]
    lines += [f"experiment {n!r} is named twice" for n in sorted(set(names)) if names.count(n) > 1]
    fixed: list[str] = []
    dimensions: list[Dimension] = []
    for key, _, text in settings:
        try:
            dimension = _dimension(key, text)
        except ValueError as error:
            lines.append(f"{key}={text}: {error}")
            continue
        if dimension is None:
            fixed.append(f"{key}={text}")
        else:
            dimensions.append(dimension)
    if not dimensions and not lines:
        lines.append("nothing varies; give a key several values, such as optimizer.lr=1e-3,1e-2")
    if lines:
        raise ConfigError(lines)
    return _checked(Space(names, tuple(fixed), tuple(dimensions)))


def _dimension(key: str, text: str) -> Dimension | None:
    found = _RANGE.fullmatch(text)
    if found:
        return _range(key, *found.groups())
    if re.match(r"(log|uniform):", text):
        raise ValueError("expected two numbers, such as log:1e-4:1e-1")
    if re.fullmatch(r"\w*:[\d.e+-]+:[\d.e+-]+", text):
        raise ValueError("expected log:LO:HI or uniform:LO:HI")
    values = tuple(value.strip() for value in _COMMA.split(text))
    if not all(values):
        raise ValueError("a value is empty; expected KEY=V1,V2")
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise ValueError(f"{twice[0]} is listed twice")
    return Choice(key, values) if len(values) > 1 else None


def _range(key: str, kind: str, low_text: str, high_text: str) -> Range:
    try:
        low, high = float(low_text), float(high_text)
    except ValueError:
        raise ValueError("expected two numbers, such as log:1e-4:1e-1") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"the range is empty; expected a low end under the high one, {kind}:LO:HI")
    if kind == "log" and low <= 0:
        raise ValueError("a log range cannot reach zero; expected a low end over 0")
    if any(key.startswith(prefix) for prefix in DATA_KEYS):
        raise ValueError("what is read cannot be a range; list its values: KEY=V1,V2")
    return Range(key, low, high, kind == "log")


def _checked(space: Space) -> Space:
    """The space with whole ranges found. Raises ConfigError where a value fits no experiment."""
    lines: dict[str, None] = {}
    dimensions = list(space.dimensions)
    for name in space.experiments:
        for place, dimension in enumerate(space.dimensions):
            if isinstance(dimension, Range):
                dimensions[place] = dimension = _whole(space, name, dimension)
            for text in texts_to_check(dimension):
                try:
                    space.experiment(name, {dimension.key: text})
                except ConfigError as error:
                    lines.update(dict.fromkeys(error.lines))
    if lines:
        raise ConfigError(list(lines))
    return replace(space, dimensions=tuple(dimensions))


def _whole(space: Space, name: str, dimension: Range) -> Range:
    """A range of whole numbers where the experiment's own value is one."""
    own = flatten(space.experiment(name, {}).config.values()).get(dimension.key)
    whole = isinstance(own, int) and not isinstance(own, bool)
    if whole and not (dimension.low.is_integer() and dimension.high.is_integer()):
        raise ConfigError([f"{dimension.key}={dimension}: the key takes whole numbers"])
    return replace(dimension, whole=whole)


def texts_to_check(dimension: Dimension) -> tuple[str, ...]:
    """All values, or both ends of a range, as an override's text."""
    if isinstance(dimension, Choice):
        return dimension.values
    return number_text(dimension.low, dimension.whole), number_text(dimension.high, dimension.whole)


def number_text(value: float, whole: bool) -> str:
    """A number as an override's text, from which the same number is read."""
    return str(int(value)) if whole else repr(float(value))


def values_of(params: Mapping[str, str]) -> dict[str, Any]:
    """A trial's values as the configs read them."""
    return {key: parse_value(text) for key, text in params.items()}
