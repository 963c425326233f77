"""What a training says at its end."""

from __future__ import annotations

from typing import Any

from train.evaluation.result import below_question_only, by_answer_type


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


def test_accuracy_by_answer_type_is_told_of_the_split_that_stands_for_the_run() -> None:
    found = result(0.4, None) | {"best": {"split": "val"}}
    assert by_answer_type(found) == []
    types = {"number": {"accuracy": 0.25, "n": 40}, "yes/no": {"accuracy": 0.5, "n": 1200}}
    found["metrics"]["test"]["by_answer_type"] = types
    assert by_answer_type(found) == [
        "test by answer type: yes/no 0.5000 (n 1,200), number 0.2500 (n 40)"
    ]
