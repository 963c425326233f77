"""Questions that accuracy does not count: their answers, their number, the official figure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_train_small_cache as small
from rich.console import Console
from test_train_small_cache import (
    FAILED,
    SmallDataset,
    build_cache,
    items_of,
    result_of,
    run_of,
    small_dataset,
    write_experiment,
)

import vqa_cache
from data.answers import vqa_accuracy_official
from train.config.files import load_experiment
from train.engine.data import load_data
from train.trainer import train


def annotated(dataset: SmallDataset) -> SmallDataset:
    """Ten annotators an example, of whom some say something else."""
    for name, items in dataset.splits.items():
        dataset.splits[name] = [
            replace(i, answers=(str(i.answer),) * 6 + ("no", "red", "Yes", "maybe")) for i in items
        ]
    return dataset


def official(run: Path, cache: Path, split: str) -> float:
    """The official evaluation of the file of predictions: of every question of the split."""
    examples = vqa_cache.open(cache).examples(f"tiny/{split}")
    rows = json.loads((run / f"predictions.{split}.json").read_text())
    assert [row["question_id"] for row in rows] == examples["question_id"].tolist()
    scores = [
        vqa_accuracy_official(row["answer"], answers)
        for row, answers in zip(rows, examples["answers"], strict=True)
    ]
    return float(np.mean(scores))


@pytest.mark.parametrize("other", ["wrong", "class", "drop"])
def test_the_official_figure_is_that_of_the_file_of_predictions(tmp_path: Path, other: str) -> None:
    """Although questions are left out, because an image failed or an answer is dropped."""
    dataset = annotated(replace(small_dataset(), broken={1002: FAILED, 1005: FAILED}))
    cache = tmp_path / "cache"
    build_cache(cache, dataset)
    run = run_of(tmp_path, cache, "answers.k=3", f"answers.other={other}", "baselines=off")
    test = result_of(run)["metrics"]["test"]
    assert test["vqa_accuracy_official"] == pytest.approx(official(run, cache, "test"))
    assert test["n_questions"] == 60
    texts = set(json.loads((run / "checkpoints/best/model.json").read_text())["answers"])
    kept = [item for item in dataset.splits["test"] if item.images[0] not in dataset.broken]
    inside = sum(item.answer in texts for item in kept)
    assert test["ceiling"] == pytest.approx(inside / 50)
    assert (test["n"], test["n_left_out"]) == (
        (inside, 60 - inside) if other == "drop" else (50, 10)
    )


@pytest.mark.parametrize("labelled", [True, False])
def test_every_question_has_an_answer_and_substitutes_are_marked(
    tmp_path: Path, labelled: bool
) -> None:
    dataset = replace(small_dataset(), broken={1002: FAILED})
    if not labelled:
        items = [replace(item, answer=None, answers=()) for item in dataset.splits["test"]]
        dataset.splits["test"], dataset.unlabelled = items, ("test",)
    build_cache(tmp_path / "cache", dataset)
    run = run_of(tmp_path, tmp_path / "cache", "baselines=off")
    test = result_of(run)["metrics"]["test"]
    assert (test["n"], test["n_left_out"]) == (55 if labelled else 0, 5)
    assert test["n_predicted"] == 55
    rows = json.loads((run / "predictions.test.json").read_text())
    assert [row["question_id"] for row in rows] == list(range(100, 160))
    substitutes = json.loads((run / "substitutes.test.json").read_text())
    reason = "an item failed in stage 1 or is missing"
    assert substitutes == [
        {"question_id": number, "answer": "no", "reason": reason} for number in range(110, 115)
    ]
    assert rows[10:15] == [{"question_id": n, "answer": "no"} for n in range(110, 115)]
    assert not (run / "substitutes.val.json").exists()


def test_what_is_left_out_goes_with_its_image_into_the_held_out_tenth(tmp_path: Path) -> None:
    """None is lost where a tenth of the images of train selects epochs."""
    images = dict.fromkeys(range(20), FAILED)
    build_cache(tmp_path / "cache", replace(small_dataset(), broken=images))
    path = write_experiment(tmp_path)
    parts = load_data(load_experiment(str(path)), vqa_cache.open(tmp_path / "cache")).parts
    left_out = {name: parts[name].left_out for name in ("train", "val")}
    assert sum(left_out.values()) == 5 * len(images)
    for name in ("train", "val"):
        assert (len(parts[name]) + left_out[name]) % 5 == 0
        every = {*parts[name].joined.kept.tolist(), *parts[name].joined.left_out.tolist()}
        assert all({e - e % 5 + k for k in range(5)} <= every for e in every), "whole images"
    assert left_out["val"] > 0


def test_outputs_that_are_not_finite_leave_the_other_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a split that does not select epochs, and so was never looked at before the end."""
    broken, healthy = 1003, small.image_row

    def row(image: int, width: int) -> Any:
        values = healthy(image, width)
        return np.full_like(values, np.nan) if image == broken else values

    monkeypatch.setattr(small, "image_row", row)
    dataset = small_dataset()
    dataset.splits["dev"] = items_of(range(2000, 2004))
    build_cache(tmp_path / "cache", dataset)
    experiment = load_experiment(str(write_experiment(tmp_path)))
    console = Console(width=200)
    run = train(experiment, cache=tmp_path / "cache", runs=tmp_path / "runs", console=console)
    line = "test: no figures: 5 outputs of the model are not finite; look for large values"
    assert line in capsys.readouterr().out
    result = result_of(run)
    test = result["metrics"]["test"]
    assert test["accuracy"] is None
    assert test["reasons"]["accuracy"] == "5 outputs of the model are not finite"
    assert (test["n"], test["n_predicted"], test["by_answer_type"]) == (60, 55, {})
    assert result["baselines"]["image_only"]["test"]["accuracy"] is None
    assert result["baselines"]["question_only"]["test"]["accuracy"] > 0.2
    for split in ("val", "dev"):
        assert result["metrics"][split]["accuracy"] > 0.2
    assert len(json.loads((run / "predictions.test.json").read_text())) == 60
    substitutes = json.loads((run / "substitutes.test.json").read_text())
    assert [row["question_id"] for row in substitutes] == list(range(115, 120))
    assert {row["reason"] for row in substitutes} == {"the model's output is not finite"}
