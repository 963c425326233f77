"""`predictions.<split>.csv`: a split's answers for people, beside those for the evaluator."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_train_evaluate import Fixed
from test_train_small_cache import FAILED, build_cache, run_of, small_dataset, write_experiment

import vqa_cache
from train.config.files import load_experiment
from train.engine.data import load_data
from train.engine.outputs import Wanted, run_model


def table_of(run: Path, split: str) -> list[dict[str, str]]:
    with (run / f"predictions.{split}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_of_predictions_has_image_question_and_the_most_probable_answers(
    tmp_path: Path,
) -> None:
    dataset = replace(small_dataset(), broken={1002: FAILED})
    items = [replace(i, question=f'{i.question}\n"really", é?') for i in dataset.splits["test"]]
    dataset.splits["test"] = items
    build_cache(tmp_path / "cache", dataset)
    run = run_of(tmp_path, tmp_path / "cache", "baselines=off")
    rows = table_of(run, "test")
    answers = json.loads((run / "predictions.test.json").read_text())
    assert [int(row["question_id"]) for row in rows] == [row["question_id"] for row in answers]
    assert [row["answer_1"] for row in rows] == [row["answer"] for row in answers]
    assert [row["question"] for row in rows] == [item.question for item in items]
    assert [int(row["image"]) for row in rows] == [item.images[0] for item in items]
    known = set(json.loads((run / "checkpoints/best/model.json").read_text())["answers"])
    for number, row in enumerate(rows):
        shares = [row[f"probability_{n}"] for n in range(1, 6)]
        top = [row[f"answer_{n}"] for n in range(1, 6)]
        if 10 <= number < 15:  # of the image that failed: the most frequent answer, no prediction
            assert (top, shares) == (["no", "", "", "", ""], [""] * 5)
            continue
        values = [float(share) for share in shares]
        assert values == sorted(values, reverse=True)
        assert 0 < sum(values) <= 1.00001
        assert set(top) <= known
        assert len(set(top)) == 5
    assert (run / "predictions.val.csv").is_file()
    assert not (run / "predictions.train.csv").exists()


def test_few_answers_leave_cells_of_the_table_empty(tmp_path: Path, cache: Path) -> None:
    run = run_of(tmp_path, cache, "answers.k=2", "baselines=off")
    for row in table_of(run, "test"):
        assert {row["answer_1"], row["answer_2"]} == {"yes", "no"}
        assert float(row["probability_1"]) + float(row["probability_2"]) == pytest.approx(1)
        assert row["answer_3"] == row["probability_3"] == ""


def test_the_first_of_the_most_probable_answers_is_the_predicted_one(
    tmp_path: Path, cache: Path
) -> None:
    """Of ties too, which topk orders as it likes."""
    experiment = load_experiment(str(write_experiment(tmp_path)))
    data = load_data(experiment, vqa_cache.open(cache))
    part, classes = data.parts["val"], len(data.vocabulary)
    for logits in (torch.zeros(classes), torch.arange(float(classes)).roll(2)):
        outputs = run_model(Fixed(logits), part, data.tables, temperature=0.5, wanted=Wanted())
        assert outputs.top is not None
        assert (outputs.top.answers[:, 0] == outputs.predicted).all()
        expected = (logits / 0.5).softmax(0).sort(descending=True).values[:5]
        assert outputs.top.probabilities[3].tolist() == pytest.approx(expected.tolist())
        assert outputs.top.answers.shape == (len(part), min(5, classes))
        assert outputs.confidence is not None
        assert outputs.confidence == pytest.approx(outputs.top.probabilities[:, 0])
        assert outputs.unanswerable is None
        told = run_model(Fixed(logits), replace(part, unanswerable=1), data.tables, temperature=0.5)
        assert told.unanswerable is not None
        assert told.unanswerable == pytest.approx((logits / 0.5).softmax(0)[1].expand(len(part)))
    assert run_model(Fixed(logits), part, data.tables).top is None
