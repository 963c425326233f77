"""Which numbers an option takes, said by the type in its factory's signature.

    def __init__(self, in_features: int, num_answers: int, *, dropout: Share = 0.0)

A configuration is checked against these types before anything is loaded. They import nothing, so
that a component imports with torch alone; pydantic asks them when it checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Range:
    """Finite numbers from `least` or above `above`, up to `most` or below `below`."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        ends = {
            "at least": self.least,
            "above": self.above,
            "at most": self.most,
            "below": self.below,
        }
        said = [f"{word} {end:g}" for word, end in ends.items() if end is not None]
        return " and ".join(["a finite number", *said])

    def check(self, value: Any) -> Any:
        """The value. Raises ValueError where it is outside."""
        if value not in self:
            raise ValueError(f"expected {self}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))


@dataclass(frozen=True)
class Checked:
    """Values of which a function says what is wrong, by a ValueError."""

    check: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))


Share = Annotated[float, Range(least=0, below=1)]
Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(least=0)]
Size = Annotated[int, Range(least=1)]
Count = Annotated[int, Range(least=0)]


def all_finite(value: Any) -> bool:
    """Whether every number of a value, lists and tables in it included, is finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    inside = value.values() if isinstance(value, dict) else value
    return not isinstance(value, dict | list | tuple) or all(map(all_finite, inside))
