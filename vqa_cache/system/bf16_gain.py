"""Whether a processor gains by computing in bf16: some are a hundred times slower in it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

REQUIRED_GAIN = 1.3


def pays(exact: Callable[[], object], fast: Callable[[], object]) -> bool:
    """Whether work is at least 1.3 times faster in bf16.

    Args:
        exact, fast: the same work in float32 and in bfloat16, done when they return.
    """
    return gain(exact, fast) >= REQUIRED_GAIN


def pays_on_cpu(exact: Callable[[], object], fast: Callable[[], object]) -> bool:
    """The same, asked on a small matrix product first: the work itself could take minutes."""
    square = torch.ones(256, 256)
    half = square.bfloat16()
    return pays(lambda: square @ square, lambda: half @ half) and pays(exact, fast)


def gain(slow: Callable[[], object], fast: Callable[[], object]) -> float:
    """How many times faster the second is; the best of three rounds, after one that warms up."""
    times: list[list[float]] = [[], []]
    for _ in range(4):
        for which, run in enumerate((slow, fast)):
            start = time.perf_counter()
            run()
            times[which].append(time.perf_counter() - start)
    return min(times[0][1:]) / min(times[1][1:])
