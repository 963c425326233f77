"""Errors and intervals of means whose examples come in clusters."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from train.metrics.clustered import clustered_error, clustered_interval, seeded_interval, student_t

# 97.5 % points of tables (for example Abramowitz and Stegun, table 26.10)
POINTS = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 7: 2.365, 10: 2.228, 30: 2.042, 120: 1.980}


@pytest.mark.parametrize(("degrees", "point"), POINTS.items())
def test_points_of_students_t(degrees: int, point: float) -> None:
    assert student_t(degrees) == pytest.approx(point, abs=6e-4)


def test_students_t_becomes_the_normal_one() -> None:
    assert student_t(100_000) == pytest.approx(1.95996, abs=5e-5)
    assert math.isnan(student_t(0))


def made(
    draw: np.random.Generator, clusters: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Differences -1, 0, 1 that those of one image share in part; mean 0 over many."""
    image = np.repeat(np.arange(clusters), draw.integers(3, 8, clusters))
    shift = draw.normal(0, 1, clusters)[image] + draw.normal(0, 1, len(image))
    return np.sign(np.where(np.abs(shift) < 0.8, 0, shift)).astype(np.int64), image


@pytest.mark.parametrize("clusters", [4, 15])
def test_the_interval_covers_the_truth_with_few_images(clusters: int) -> None:
    draw = np.random.default_rng(clusters)
    covered = 0
    for _ in range(400):
        low, high = clustered_interval(*made(draw, clusters))
        covered += low <= 0 <= high
    assert 0.91 <= covered / 400 <= 0.98, "0.95 but for chance; resampled percentiles: 0.78 to 0.9"


def test_the_interval_of_many_is_the_normal_one_of_a_ratio() -> None:
    gain, image = made(np.random.default_rng(3), 400)
    low, high = clustered_interval(gain, image)
    residual = np.bincount(image, weights=gain - gain.mean())
    error = np.sqrt(np.square(residual).sum()) / len(gain)
    assert low == pytest.approx(gain.mean() - 1.96 * error, abs=0.002)
    assert high == pytest.approx(gain.mean() + 1.96 * error, abs=0.002)
    alone = clustered_interval(gain, np.arange(len(gain)))
    assert alone[1] - alone[0] < 0.8 * (high - low), "questions of one image are not independent"


def test_one_cluster_has_no_error() -> None:
    assert math.isnan(clustered_error(np.array([0, 1]), np.array([7, 7])))


@pytest.mark.parametrize(("paired", "seeds"), [(True, 3), (False, 3), (True, 8)])
def test_intervals_over_seeds_and_images_cover(paired: bool, seeds: int) -> None:
    """Simulated heads whose seeds differ as much as images do: 95 % or more, never far less."""
    rng = np.random.default_rng(seeds + paired)
    covered, repeats, images, questions = 0, 400, 60, 3
    cluster = np.repeat(np.arange(images), questions)
    for _ in range(repeats):
        of_image = np.repeat(rng.normal(0, 0.3, images), questions)
        of_question = rng.normal(0, 0.5, images * questions)
        of_seed = rng.normal(0, 0.05, seeds)
        values = 0.1 + of_seed[:, None] + of_image + of_question
        values = values + rng.normal(0, 0.2, values.shape)
        groups = [values.mean(axis=1)] if paired else [values.mean(axis=1), np.zeros(seeds)]
        low, high = seeded_interval(values.mean(axis=0), cluster, groups)
        covered += low <= 0.1 <= high
    assert covered / repeats >= 0.93


def test_one_seed_leaves_the_interval_over_images() -> None:
    rng = np.random.default_rng(0)
    values, cluster = rng.normal(size=30), np.repeat(np.arange(10), 3)
    expected = clustered_interval(values, cluster)
    assert seeded_interval(values, cluster, [np.array([0.1])]) == pytest.approx(expected)
