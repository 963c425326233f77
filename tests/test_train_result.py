"""What a training says at its end."""

from __future__ import annotations

from typing import Any

from train.evaluation.result import below_question_only


def result(reached: float | None, alone: float | None) -> dict[str, Any]:
    return {
        "metrics": {"train": {"accuracy": 0.9}, "test": {"accuracy": reached}},
        "baselines": {"question_only": {"test": {"accuracy": alone}}},
    }


def test_a_head_below_question_only_is_told() -> None:
    [told] = below_question_only(result(0.41, 0.67))
    assert told.startswith("note: test: 0.4100 is below question only (0.6700)")
    assert "train.overfit=64" in told


def test_a_head_that_is_not_below_or_cannot_be_compared_is_not() -> None:
    for reached, alone in ((0.67, 0.67), (0.7, 0.67), (None, 0.67), (0.4, None)):
        assert below_question_only(result(reached, alone)) == []
    without = result(0.4, 0.67) | {"baselines": {"question_only": None}}
    assert below_question_only(without) == []
