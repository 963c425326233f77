"""Figures of judged questions: by type, by answer, confusions, calibration, risk and coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_train_small_cache import build_cache, result_of, run_of, small_dataset

from train.report import figures
from train.report.judged import Judged, judge

# type, truth, the most probable answers
ANSWERED = [
    ("colour", "red", ["red", "blue"]),
    ("colour", "red", ["blue", "red"]),
    ("colour", "blue", ["blue", "red"]),
    ("colour", "teal", ["red", "no"]),
    ("existence", "yes", ["yes", "no"]),
    ("existence", "no", ["yes", "no"]),
    ("", "no", ["no", "yes"]),
]


@pytest.fixture
def judged() -> Judged:
    return made(ANSWERED)


def made(answered: Sequence[tuple[str, str, list[str]]]) -> Judged:
    """Judged questions of a vocabulary of ten."""
    n = len(answered)
    nothing: Any = None
    return Judged(
        split="test",
        num_answers=10,
        ids=range(n),
        questions=["?"] * n,
        images=[""] * n,
        types=[kind for kind, _, _ in answered],
        answer_types=[""] * n,
        types_are="question type",
        truths=[truth for _, truth, _ in answered],
        examples=nothing,
        rows=np.arange(n),
        top=[[(answer, 0.9 - 0.1 * k) for k, answer in enumerate(top)] for _, _, top in answered],
        right=np.array([truth == top[0] for _, truth, top in answered]),
        near=np.array([truth in top[1:] for _, truth, top in answered]),
    )


def test_types_with_n_top1_and_top5(judged: Judged) -> None:
    table = figures.by_type(judged, judged.types, "question type")
    assert list(table.rows) == [("colour", 4, 0.5, 0.75), ("existence", 2, 0.5, 1.0)]
    opened = figures.by_type(judged, judged.types, "question type", ~judged.yes_no)
    assert list(opened.rows) == [("colour", 4, 0.5, 0.75)]
    few = replace(judged, num_answers=5)  # five are all answers
    assert [row[3] for row in figures.by_type(few, few.types, "question type").rows] == [None, None]


def test_best_and_worst_are_of_types_with_enough_questions() -> None:
    rows = [("a", 40, 0.9, 1.0), ("b", 40, 0.2, 1.0), ("c", 40, 0.5, 1.0), ("d", 3, 1.0, 1.0)]
    table = replace(figures.by_type(made(ANSWERED), ["x"] * 7, "question type"), rows=rows)
    assert figures.best_and_worst(table) == (["a (0.900)"], ["b (0.200)"])
    assert figures.best_and_worst(replace(table, rows=rows[:1])) == ([], [])


def test_where_a_data_set_has_no_types_the_first_words_stand_for_them(tmp_path: Path) -> None:
    dataset = small_dataset(test=4)
    for split, items in dataset.splits.items():
        dataset.splits[split] = [replace(i, question_type=None, answer_type=None) for i in items]
    build_cache(tmp_path / "cache", dataset)
    run = run_of(tmp_path, tmp_path / "cache", "baselines=off", "train.epochs=1")
    found = judge(run, result_of(run), "test", tmp_path / "cache")
    assert found.types_are == "first two words"
    assert set(found.types) == {"what colour", "is it"}
    assert figures.by_type(found, found.answer_types, "answer type").rows == []


def test_precision_recall_and_f1_of_an_answer(judged: Judged) -> None:
    truth, given = np.array(judged.truths), np.array(judged.predicted)
    table = figures.by_answer(judged).rows
    assert [row[0] for row in table] == ["no", "red", "blue", "teal", "yes"]
    for answer, support, predicted, precision, recall, f1 in table:
        both = int(((truth == answer) & (given == answer)).sum())
        assert (support, predicted) == ((truth == answer).sum(), (given == answer).sum())
        assert precision == (both / predicted if predicted else None)
        assert recall == (both / support if support else None)
        assert f1 == 2 * both / (support + predicted)


def test_confusions_are_the_mistakes(judged: Judged) -> None:
    assert list(figures.confusions(judged).rows) == [
        ("no", "yes", 1, 0.5),
        ("red", "blue", 1, 0.5),
        ("teal", "red", 1, 1.0),
    ]
    heat = figures.heat(judged)
    assert heat.shares.shape == (len(heat.answers), len(heat.answers) + 1)
    assert heat.shares.sum(axis=1) == pytest.approx(np.ones(len(heat.answers)))
