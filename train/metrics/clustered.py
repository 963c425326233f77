"""Errors of a mean whose examples come in clusters: questions of one image are not independent."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
CONFIDENCE = 0.95
_HALVINGS = 60  # of the angle that is looked for: beyond the last bit of a float64


def clustered_error(values: npt.NDArray[np.generic], cluster: npt.NDArray[np.int64]) -> float:
    """Standard error of the mean of `values` [n]; NaN with one cluster alone.

    sqrt(G / (G - 1) * sum over G clusters of (sum of (value - mean))^2) / n.

    Args:
        cluster: int64 [n], examples of one cluster share a number.
    """
    _, cluster = np.unique(cluster, return_inverse=True)
    clusters = int(cluster.max()) + 1
    if clusters < 2:
        return math.nan
    residual = values - values.mean()
    sums = np.bincount(cluster, weights=residual, minlength=clusters)
    return float(np.sqrt(clusters / (clusters - 1) * np.square(sums).sum()) / len(residual))


def clustered_interval(
    values: npt.NDArray[np.generic], cluster: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """95 % interval of the mean: Student's t with one degree of freedom less than clusters, which
    holds with few of them, where a percentile bootstrap is too narrow (Cameron, Gelbach and Miller
    2008, doi:10.1162/rest.90.3.414)."""
    half = student_t(len(np.unique(cluster)) - 1) * clustered_error(values, cluster)
    mean = float(values.mean())
    return mean - half, mean + half


def seeded_interval(
    difference: npt.NDArray[np.float64],
    cluster: npt.NDArray[np.int64],
    seeds: Sequence[npt.NDArray[np.float64]],
) -> tuple[float, float]:
    """95 % interval of a mean over questions and seeds: that of the mean over seeds, widened by how
    much seeds differ.

    The two variances add up, with the degrees of freedom of Satterthwaite (1946,
    doi:10.2307/3002019), rounded down. What a seed does to single questions stands in both, so with
    few images it is wide rather than narrow.

    Args:
        difference: [n], of each question, the mean over seeds.
        cluster: int64 [n], see `clustered_error`.
        seeds: independent groups of figures, each [k], whose means make the mean; groups of one are
            taken as known.
    """
    parts = [(clustered_error(difference, cluster) ** 2, len(np.unique(cluster)) - 1)]
    parts += [
        (float(np.var(one, ddof=1)) / len(one), len(one) - 1) for one in seeds if len(one) > 1
    ]
    total = sum(variance for variance, _ in parts)
    spread = sum(variance**2 / degrees for variance, degrees in parts)
    degrees = max(1, int(total**2 / spread)) if spread > 0 else parts[0][1]
    half = student_t(degrees) * math.sqrt(total)
    mean = float(difference.mean())
    return mean - half, mean + half


def student_t(degrees: int) -> float:
    """What the size of a t variable stays below with a probability of 0.95; NaN without a degree
    of freedom."""
    if degrees < 1:
        return math.nan
    low, high = 0.0, math.pi / 2
    for _ in range(_HALVINGS):
        angle = (low + high) / 2
        low, high = (angle, high) if _within(angle, degrees) < CONFIDENCE else (low, angle)
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """P(|t| < sqrt(degrees) tan(angle)), exact (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    odd = degrees % 2
    factors = np.arange(1 + odd, degrees - 2, 2, dtype=np.float64)
    terms = np.cumprod(factors / (factors + 1) * math.cos(angle) ** 2)
    if not odd:
        return float(math.sin(angle) * (1 + terms.sum()))
    if degrees == 1:
        return 2 * angle / math.pi
    return float(2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * (1 + terms.sum())))
