"""Planning a comparison: its promises against simulated heads, and on runs that were trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from test_train_small_cache import run_of

from train.errors import TrainError
from train.metrics.clustered import seeded_interval
from train.metrics.design import pilot_of_pairs, pilot_of_seeds
from train.sweep.__main__ import command
from train.sweep.design import design

PER_IMAGE = 4
QUICK = ("train.epochs=2", "optimizer.lr=1e-3")  # seeds still differ


def simulated(
    rng: np.random.Generator, images: int, seeds: int, difference: float
) -> tuple[np.ndarray, np.ndarray]:
    """Differences [seeds, n] whose questions, images and seeds all vary, and the images."""
    n = images * PER_IMAGE
    of_question = np.repeat(rng.normal(0, 0.2, images), PER_IMAGE) + rng.normal(0, 0.3, n)
    of_seed = rng.normal(0, 0.01, seeds)[:, None]
    single = rng.normal(0, 0.3, (seeds, n))
    return difference + of_seed + of_question + single, np.repeat(np.arange(images), PER_IMAGE)


@pytest.mark.parametrize("seeds", [3, 6])
def test_a_detectable_difference_is_found_four_times_in_five(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    pilot = pilot_of_pairs(*simulated(rng, 2000, 8, 0.0))
    images = 300
    difference = pilot.detectable(images * PER_IMAGE, seeds)
    found = 0
    for _ in range(100):
        values, image = simulated(rng, images, seeds, difference)
        found += seeded_interval(values.mean(axis=0), image, [values.mean(axis=1)])[0] > 0
    assert 0.68 <= found / 100 <= 0.95


def test_what_is_needed_is_detectable_and_less_is_not() -> None:
    pilot = pilot_of_pairs(*simulated(np.random.default_rng(0), 500, 5, 0.0))
    questions = pilot.needed(0.04, 5)
    assert questions is not None
    assert pilot.detectable(questions, 5) <= 0.04 < pilot.detectable(questions * 0.99, 5)
    assert pilot.needed(0.001, 2) is None  # seeds alone differ by more
    more = pilot.needed(0.04, 12)
    assert more is not None
    assert more < questions


def test_one_setting_tells_what_seeds_do() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random((3, 400)) < 0.7).astype(float)
    image = np.repeat(np.arange(100), 4)
    pilot = pilot_of_seeds(right, image)
    assert pilot.questions == 0
    assert pilot.single == pytest.approx(2 * 0.7 * 0.3 / 400, rel=0.2)
    two = pilot_of_seeds(right[:2], image)
    assert two.single == pytest.approx(2 * 0.7 * 0.3 / 400, rel=0.3)


def test_seeds_that_answer_alike_plan_nothing(tmp_path: Path, cache: Path) -> None:
    for seed in (0, 1):
        run = run_of(tmp_path, cache, "train.epochs=1", f"seed={seed}", head='name = "linear"')
    name = run.name.rpartition("-")[0]
    with pytest.raises(TrainError, match=r"all 2 seeds of .* answered test alike, so nothing is"):
        design((name,), 0.1, 3, cache=cache, runs=tmp_path / "runs")


def test_runs_are_planned_from(tmp_path: Path, cache: Path) -> None:
    runs = tmp_path / "runs"
    first = run_of(tmp_path, cache, *QUICK, "seed=0")
    with pytest.raises(TrainError, match="has 1 finished run; expected 2 at least that differ in"):
        design((first.name,), 0.1, 3, cache=cache, runs=runs)
    with pytest.raises(TrainError, match="found 3 experiments; expected one, or two"):
        design(("a", "b", "c"), 0.1, 3, cache=cache, runs=runs)
    run_of(tmp_path, cache, *QUICK, "seed=1")
    name = first.name.rpartition("-")[0]
    options = ["--cache", str(cache), "--runs", str(runs)]
    line = [name, "--design", "0.2", "--seeds", "4", *options]
    told = CliRunner().invoke(command, [*line, "--json"], catch_exceptions=False)
    found = json.loads(told.stdout)
    assert found["n"] == 60
    assert [row["seeds"] for row in found["needed"]] == [2, 3, 4, 5, 8, 12, 20]
    assert found["decides"] == (found["detectable"] <= 0.2)
    shown = CliRunner().invoke(command, line, catch_exceptions=False).stdout
    assert "with 4 seeds each, a setting and another are told apart in 80% of cases" in shown
    line[2] = "1e-9"
    shown = CliRunner().invoke(command, line, catch_exceptions=False).stdout
    assert "warning: a difference of 1e-09 cannot be decided there; it takes" in shown
