"""Confidence: against plain restatements, scikit-learn, and at the corners."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from train.metrics.calibration import (
    accuracy_at_coverage,
    area_under_risk_coverage,
    average_precision,
    coverage_at_error,
    expected_calibration_error,
    reliability,
)
from train.metrics.classification import compute

# few distinct confidences, so that many tie
ANSWERED = st.lists(
    st.tuples(st.integers(0, 20).map(lambda n: n / 20), st.booleans()), min_size=1, max_size=40
)


def arrays(answered: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    confidence, correct = zip(*answered, strict=True)
    return np.array(confidence), np.array(correct)


@given(ANSWERED)
def test_calibration_error_is_the_sum_over_bins(answered: list[tuple[float, bool]]) -> None:
    confidence, correct = arrays(answered)
    expected = 0.0
    for bin_ in range(15):
        low, high = bin_ / 15, (bin_ + 1) / 15
        inside = [(c, r) for c, r in answered if (low < c <= high or (bin_ == 0 and c == 0))]
        if inside:
            mean = sum(c for c, _ in inside) / len(inside)
            share = sum(r for _, r in inside) / len(inside)
            expected += len(inside) / len(answered) * abs(mean - share)
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_at_the_corners() -> None:
    sure, right = np.ones(10), np.ones(10, dtype=bool)
    assert expected_calibration_error(sure, right) == 0
    assert expected_calibration_error(sure, ~right) == 1
    assert expected_calibration_error(np.full(4, 0.5), np.array([1, 1, 0, 0], dtype=bool)) == 0


@given(ANSWERED, st.sampled_from([0.0, 0.01, 0.05, 0.3, 1.0]))
def test_coverage_is_the_largest_threshold_that_holds(
    answered: list[tuple[float, bool]], most: float
) -> None:
    confidence, correct = arrays(answered)
    best = 0.0
    for threshold in {c for c, _ in answered}:
        covered = [r for c, r in answered if c >= threshold]
        if 1 - sum(covered) / len(covered) <= most + 1e-12:
            best = max(best, len(covered) / len(answered))
    assert coverage_at_error(confidence, correct, most) == pytest.approx(best)


@given(ANSWERED, st.sampled_from([0.5, 0.8, 1.0]))
def test_the_most_confident_share_takes_ties_along(
    answered: list[tuple[float, bool]], least: float
) -> None:
    confidence, correct = arrays(answered)
    ranked = sorted(answered, key=lambda one: -one[0])
    lowest = ranked[math.ceil(least * len(ranked) - 1e-9) - 1][0]
    covered = [r for c, r in answered if c >= lowest]
    found = accuracy_at_coverage(confidence, correct, least)
    assert found == pytest.approx(sum(covered) / len(covered))


@given(ANSWERED)
def test_the_area_is_the_mean_error_among_the_at_least_as_sure(
    answered: list[tuple[float, bool]],
) -> None:
    confidence, correct = arrays(answered)
    errors = []
    for own, _ in answered:
        covered = [r for c, r in answered if c >= own]
        errors.append(1 - sum(covered) / len(covered))
    expected = sum(errors) / len(errors)
    assert area_under_risk_coverage(confidence, correct) == pytest.approx(expected, abs=1e-12)


def test_sure_where_right_is_better_than_sure_where_wrong() -> None:
    correct = np.array([True] * 6 + [False] * 4)
    rising, falling = np.linspace(0.1, 0.9, 10), np.linspace(0.9, 0.1, 10)
    assert area_under_risk_coverage(falling, correct) < area_under_risk_coverage(rising, correct)
    assert coverage_at_error(falling, correct, 0.0) == pytest.approx(0.6)
    assert coverage_at_error(rising, correct, 0.3) == 0.0


@given(ANSWERED)
def test_average_precision_is_that_of_scikit_learn(answered: list[tuple[float, bool]]) -> None:
    scores, positive = arrays(answered)
    if not positive.any():
        assert math.isnan(average_precision(positive, scores))
        return
    expected = average_precision_score(positive, scores)
    assert average_precision(positive, scores) == pytest.approx(expected)


def test_a_rule_has_no_confidence() -> None:
    from test_train_metrics import record

    names = ["calibration_error", "coverage_at_1_percent_error", "area_under_risk_coverage"]
    values, reasons = compute(record(), names)
    assert set(values.values()) == {None}
    assert set(reasons.values()) == {"a rule, which gives no probabilities"}
    sure = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    values, _ = compute(record(confidence=sure), names)
    assert values["coverage_at_1_percent_error"] == pytest.approx(1 / 6)
    fitted = record(confidence=sure, fitted_confidence=np.full(6, 0.5))
    values, _ = compute(fitted, ["calibration_error_fitted", "accuracy_at_50_percent_coverage"])
    # right: the first, third and fourth of six
    assert values == {
        "calibration_error_fitted": 0,
        "accuracy_at_50_percent_coverage": pytest.approx(2 / 3),
    }
    _, reasons = compute(record(confidence=sure), ["calibration_error_fitted"])
    assert reasons == {"calibration_error_fitted": "no temperature was fitted"}


def test_answerability_is_judged_by_the_probability_of_unanswerable() -> None:
    from test_train_metrics import record

    random = np.random.default_rng(2)
    hopeless, probability = random.random(6) < 0.5, random.random(6)
    assert 0 < hopeless.sum() < 6
    name = "unanswerable_average_precision"
    values, _ = compute(record(unanswerable=(hopeless, probability)), [name])
    assert values[name] == pytest.approx(average_precision_score(hopeless, probability))
    _, reasons = compute(record(unanswerable=(np.zeros(6, dtype=bool), probability)), [name])
    assert reasons[name] == "no question is unanswerable"
    _, reasons = compute(record(), [name])
    assert reasons[name].startswith("no question types answerable and unanswerable")


def test_reliability_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.55, 1.0])
    right = np.array([True, False, True, False, True])
    said, accuracy, n = reliability(confidence, right, bins=10)
    assert n.tolist() == [2, 3]
    assert accuracy == pytest.approx([0.5, 2 / 3])
    assert said == pytest.approx([0.55, 2.9 / 3])
