"""Measuring things against each other: they take turns in one run, and medians are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Turn = Callable[[], float]  # does some work; how many units (samples, bytes) it was


def take_turns(
    work: Mapping[str, Callable[[], float]],
    *,
    rounds: int = 5,
    before: Mapping[str, Callable[[], object]] = {},
) -> dict[str, list[float]]:
    """Units a second of each piece of work, one figure a round.

    Every piece runs once more before the first round, which warms it up.

    Args:
        work: name -> function that does a turn and returns how many units (samples, bytes) it did.
        before: name -> what is done before each of its turns, outside the clock.
    """
    speeds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, run in work.items():
            if name in before:
                before[name]()
            began = time.perf_counter()
            units = run()
            seconds = time.perf_counter() - began
            if number:
                speeds[name].append(units / seconds)
    return speeds


def ratio(speeds: Mapping[str, list[float]], name: str, other: str) -> float:
    """How many times faster one is than another: the median over the rounds."""
    pairs = zip(speeds[name], speeds[other], strict=True)
    return round(statistics.median(a / b for a, b in pairs), 3)


def median(speeds: Mapping[str, list[float]], name: str) -> float:
    """The median speed of one."""
    return round(statistics.median(speeds[name]), 1)
