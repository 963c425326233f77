"""How many questions and seeds a comparison needs, planned from one that was made.

The variance of a difference between two settings, each the mean over seeds, has three parts: what
the questions are (the settings differ in them, whatever the seed), what each seed does to single
questions, and how much seeds differ as a whole. More questions shrink the first two, more seeds the
last two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from train.metrics.clustered import clustered_error, student_t

FOUND = 0.8  # of true differences of that size an interval leaves out 0
_POWER = 0.8416  # what a normal variable stays below with that probability
_MOST = 1e12  # questions; what needs more needs more seeds
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pilot:
    """What a comparison tells about the next one.

    Attributes:
        n, images: questions, of so many images.
        questions: variance of the mean over n questions that more seeds leave.
        single: the same of one seed, on top: what it does to single questions.
        seeds: variance of one seed's difference as a whole.
    """

    n: int
    images: int
    questions: float
    single: float
    seeds: float

    def detectable(self, questions: float, seeds: int) -> float:
        """The smallest true difference that is told from 0 four times in five: by its 95 % interval
        over so many questions, with as many on each image, and seeds, 2 at least."""
        by_question = (self.questions + self.single / seeds) * self.n / questions
        by_seed = self.seeds / seeds
        images = max(2.0, self.images * questions / self.n)
        spread = by_question**2 / (images - 1) + by_seed**2 / (seeds - 1)
        total = by_question + by_seed
        degrees = max(1, int(min(total**2 / spread, 1e6))) if spread > 0 else 1
        return (student_t(degrees) + _POWER) * math.sqrt(total)

    def needed(self, difference: float, seeds: int) -> int | None:
        """How many questions tell that difference with so many seeds; None where none are
        enough."""
        if self.detectable(_MOST, seeds) > difference:
            return None
        low, high = 0.0, math.log(_MOST)
        for _ in range(60):
            middle = (low + high) / 2
            enough = self.detectable(math.exp(middle), seeds) <= difference
            low, high = (low, middle) if enough else (middle, high)
        return math.ceil(math.exp(high))


def pilot_of_pairs(differences: Floats, image: npt.NDArray[np.int64]) -> Pilot:
    """From two settings: differences [seeds, n] of each seed's answers, right 1 and wrong 0."""
    seeds = len(differences)
    each = _mean_variance(differences, image)
    mean = clustered_error(differences.mean(axis=0), image) ** 2
    single = (each - mean) * seeds / (seeds - 1)
    return _pilot(image, mean - single / seeds, single, differences.mean(axis=1).var(ddof=1))


def pilot_of_seeds(right: Floats, image: npt.NDArray[np.int64]) -> Pilot:
    """From one setting: [seeds, n], right 1 and wrong 0. Two settings differ from each other in at
    least as many questions as its seeds do."""
    pairs = right - np.roll(right, 1, axis=0)
    pairs = pairs[: 1 if len(right) == 2 else len(right)]
    return _pilot(image, 0.0, _mean_variance(pairs, image), 2 * right.mean(axis=1).var(ddof=1))


def _mean_variance(rows: Floats, image: npt.NDArray[np.int64]) -> float:
    errors: Sequence[float] = [clustered_error(row, image) for row in rows]
    return float(np.mean(np.square(errors)))


def _pilot(
    image: npt.NDArray[np.int64], questions: float, single: float, seeds: np.floating
) -> Pilot:
    images = len(np.unique(image))
    return Pilot(len(image), images, max(0.0, questions), max(0.0, single), float(seeds))
