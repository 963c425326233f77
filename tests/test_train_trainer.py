"""Whole runs on a small real cache: figures, determinism, selection, checkpoints."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from test_train_small_cache import (
    FAILED,
    SmallDataset,
    build_cache,
    digests,
    items_of,
    result_of,
    run_of,
    small_dataset,
    write_experiment,
)

import vqa_cache
from train.config.files import load_experiment
from train.errors import TrainError
from train.evaluation.result import headline_split
from train.loop.checkpoint import load_checkpoint
from train.loop.selection import Score
from train.trainer import train as train_run

HIDDEN = 'name = "mlp"\nhidden = [16]\ndropout = 0.1'


# ---------------------------------------------------------------- results


def test_result_has_what_other_programs_read(tmp_path: Path, cache: Path) -> None:
    run = run_of(tmp_path, cache, "train.epochs=40", "head.hidden=[64]", "baselines=on")
    result = result_of(run)
    assert set(result["metrics"]) == {"train", "val", "test"}
    test = result["metrics"]["test"]
    assert test["accuracy"] > 0.9, "the colour is in the row, so the head must learn it"
    assert test["n"] == 60
    assert (test["n_left_out"], test["ceiling"], test["other_policy"]) == (0, 1.0, "wrong")
    assert test["vqa_accuracy_official"] is None
    assert "60 of 60 examples have other than 10" in test["reasons"]["vqa_accuracy_official"]
    assert test["by_answer_type"]["other"]["n"] == 12
    assert test["by_question_type"]["is i"]["n"] == 48
    assert set(result["throughput"]) == {
        *("samples_per_second", "epoch_seconds", "load_seconds"),
        *("controls_seconds", "controls_share"),
    }
    assert result["best"]["split"] == "val"
    assert result["best"]["held_out_of_train"] is True
    assert result["seed"] == 0
    assert result["precision"] == "fp32"
    assert result["environment"]["torch"] == torch.__version__
    assert result["run_id"] == run.name
    for name in ("majority", "question_only", "image_only"):
        assert set(result["baselines"][name]["test"]) == {"accuracy", "accuracy_se", "n"}
    assert result["baselines"]["question_only"]["test"]["accuracy"] < test["accuracy"]


def test_figures_agree_with_the_predictions(tmp_path: Path, cache: Path) -> None:
    run = run_of(tmp_path, cache, "baselines=on")
    split = vqa_cache.open(cache).split("tiny/test")
    truth = [split.answer_texts[code] for code in split.answer.tolist()]
    rows = json.loads((run / "predictions.test.json").read_text())
    assert [row["question_id"] for row in rows] == split.question_id.tolist()
    right = np.mean([row["answer"] == answer for row, answer in zip(rows, truth, strict=True)])
    result = result_of(run)
    assert result["metrics"]["test"]["accuracy"] == pytest.approx(right)
    most = max(set(truth), key=truth.count)  # "no", in train as in test
    majority = result["baselines"]["majority"]["test"]["accuracy"]
    assert majority == pytest.approx(truth.count(most) / len(truth))


def test_metrics_rows_are_by_step_without_a_clock(tmp_path: Path, cache: Path) -> None:
    run = run_of(tmp_path, cache, "train.evaluate_every=2")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "train_loss" in row]
    per_epoch = 12  # 180 examples in batches of 16: 11 and one of 4
    assert [row["step"] for row in steps] == list(range(1, 3 * per_epoch + 1))
    assert set(steps[1]) == {"step", "epoch", "train_loss", "lr"}
    assert set(steps[0]) == {*steps[1], "gradient_norm"}, "every fiftieth step tells it"
    evaluated = [row for row in rows if "accuracy" in row]
    assert [row["epoch"] for row in evaluated] == [2, 3], "every second epoch and the last"
    assert {row["part"] for row in evaluated} == {"val"}


def test_the_same_run_twice_is_identical_to_the_byte(tmp_path: Path, cache: Path) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        torch.rand(17)  # the state of the caller's generator must not matter
        found.append(digests(run_of(tmp_path / name, cache, "train.snapshot_every=1")))
    assert {"metrics.jsonl", "predictions.test.json", "checkpoints/best/model.safetensors"} < set(
        found[0]
    )
    assert found[0] == found[1]


def test_a_run_says_where_it_computes(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = load_experiment(str(write_experiment(tmp_path)), ["train.epochs=1", "load=map"])
    train_run(experiment, cache=cache, runs=tmp_path / "runs", console=Console(width=200))
    mapped = "image and text rows mapped from files, the page cache holds what it can"
    assert f"computed on cpu in fp32, {mapped}" in capsys.readouterr().out


def test_the_callers_random_state_is_left_alone(tmp_path: Path, cache: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run_of(tmp_path, cache)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("override", ["seed=1", "data_seed=1", "train.batch_size=8"])
def test_seeds_and_budget_change_the_run(tmp_path: Path, cache: Path, override: str) -> None:
    plain, other = run_of(tmp_path, cache), run_of(tmp_path, cache, override)
    assert plain.name != other.name
    assert digests(plain)["metrics.jsonl"] != digests(other)["metrics.jsonl"]


@pytest.mark.parametrize("normalise", ["none", "l2", "zscore"])
def test_loading_leaves_id_and_figures_alone(tmp_path: Path, cache: Path, normalise: str) -> None:
    runs = []
    for load in ("map", "read"):
        (tmp_path / load).mkdir()
        changes = (f"features.normalise={normalise}", f"load={load}")
        runs.append(run_of(tmp_path / load, cache, *changes))
    assert runs[0].name == runs[1].name
    first, second = (digests(run) for run in runs)
    assert first.pop("config.toml") != second.pop("config.toml")
    assert first == second


@pytest.mark.parametrize(
    ("head", "fusion"),
    [
        ('name = "linear"', 'name = "concat"'),
        (HIDDEN + "\nbatch_norm = true", 'name = "product"\ndim = 8'),
        ('name = "cosine"\nhidden = [16]\nanswers = "centre"', 'name = "concat"'),
        ('name = "cosine"\nhidden = [16]\nanswers = "zscore"', 'name = "product"\nl2 = true'),
    ],
)
def test_every_head_learns(tmp_path: Path, cache: Path, head: str, fusion: str) -> None:
    run = run_of(tmp_path, cache, "train.epochs=40", "baselines=off", head=head, fusion=fusion)
    assert result_of(run)["metrics"]["train"]["accuracy"] > 0.75


def test_whitening_few_answers_is_refused(tmp_path: Path, cache: Path) -> None:
    head = 'name = "cosine"\nhidden = []\nanswers = "whiten"'
    with pytest.raises(TrainError, match=r"^head 'cosine': answers = 'whiten' needs more answers"):
        run_of(tmp_path, cache, head=head)


def test_overfit_learns_its_examples_by_heart(tmp_path: Path, cache: Path) -> None:
    result = result_of(run_of(tmp_path, cache, "train.overfit=10", "train.epochs=100"))
    assert set(result["metrics"]) == {"train"}
    assert result["metrics"]["train"]["accuracy"] == 1.0
    assert result["metrics"]["train"]["n"] == 10
    assert result["baselines"]["majority"] is None
    assert result["baselines"]["reasons"]["majority"] == "train.overfit is set"


def test_an_unlabelled_split_is_predicted_and_has_no_figures(tmp_path: Path) -> None:
    dataset = small_dataset()
    unlabelled = [replace(item, answer=None, answers=()) for item in items_of(range(500, 503))]
    dataset.splits["test"] = unlabelled
    dataset.unlabelled = ("test",)
    build_cache(tmp_path / "cache", dataset)
    run = run_of(tmp_path, tmp_path / "cache")
    test = result_of(run)["metrics"]["test"]
    assert test["accuracy"] is None
    assert test["reasons"]["accuracy"] == "no labelled example to evaluate"
    assert (test["n"], test["n_predicted"]) == (0, 15)
    assert len(json.loads((run / "predictions.test.json").read_text())) == 15
    assert not (run / "substitutes.test.json").exists()
    assert headline_split(result_of(run)) == "val"


def test_ten_annotators_give_vqa_accuracy(tmp_path: Path) -> None:
    dataset = small_dataset()
    for name, items in dataset.splits.items():
        dataset.splits[name] = [
            replace(i, answers=(str(i.answer),) * 2 + ("something",) * 8) for i in items
        ]
    build_cache(tmp_path / "cache", dataset)
    run = run_of(tmp_path, tmp_path / "cache")
    test = result_of(run)["metrics"]["test"]
    # two of ten agree with the majority answer: 0.6 where it is predicted, 0 elsewhere
    assert test["vqa_accuracy_official"] == pytest.approx(0.6 * test["accuracy"])
    assert test["vqa_accuracy_simple"] == pytest.approx(2 / 3 * test["accuracy"])


@pytest.mark.parametrize("other", ["wrong", "class", "drop"])
def test_what_other_means(tmp_path: Path, cache: Path, other: str) -> None:
    """With one answer in the vocabulary ("no"), what is outside is wrong, or one class, or gone."""
    run = run_of(tmp_path, cache, "answers.k=1", f"answers.other={other}", "baselines=off")
    test = result_of(run)["metrics"]["test"]
    inside = 12 * 3
    if other == "drop":
        assert (test["n"], test["n_left_out"], test["accuracy"]) == (inside, 60 - inside, 1.0)
    else:
        assert (test["n"], test["n_left_out"]) == (60, 0)
    assert test["ceiling"] == inside / 60
    if other == "wrong":
        assert test["accuracy"] == inside / 60
    assert test["other_policy"] == other


def test_bf16_is_recorded_and_learns(tmp_path: Path, cache: Path) -> None:
    run = run_of(tmp_path, cache, "train.precision=bf16", "train.epochs=15")
    result = result_of(run)
    assert result["precision"] == "bf16"
    assert result["metrics"]["train"]["accuracy"] > 0.7


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(TrainError) as error:
        run_of(tmp_path, cache, "optimizer.lr=1e30", "optimizer.name=sgd")
    expected = (
        r"tiny_mlp: step \d+ \(epoch 1\): (the loss is (nan|inf)|on val .* are not finite) "
        r"at learning rate 1e\+30; no snapshot yet; lower optimizer.lr"
    )
    assert re.match(expected, str(error.value))
    assert not list((tmp_path / "runs").glob("*/result.json"))


def test_options_out_of_range_name_their_section(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(TrainError, match=r"^schedule 'constant': warmup_steps is 99; expected at "):
        run_of(tmp_path, cache, "schedule.warmup_steps=99")


def test_batch_norm_of_one_example_is_an_error(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(TrainError, match="at least 2 examples in every batch, found a batch of 1"):
        run_of(tmp_path, cache, "train.overfit=1", "head.batch_norm=true")


def test_selection_takes_the_best_epoch(tmp_path: Path, cache: Path) -> None:
    """A learning rate that grows until it does harm: the best epoch is not the last."""
    schedule = 'name = "linear"\nfinal = 400.0'
    run = run_of(tmp_path, cache, "train.epochs=12", schedule=schedule)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    accuracy = {row["epoch"]: row["accuracy"] for row in rows if "accuracy" in row}
    result = result_of(run)
    assert accuracy[result["best"]["epoch"]] == max(accuracy.values())
    assert result["metrics"]["val"]["accuracy"] == max(accuracy.values())
    assert accuracy[12] < max(accuracy.values()), "otherwise this test shows nothing"


def test_scores_are_compared_by_accuracy_then_cross_entropy() -> None:
    assert Score(1, 0.5, 1.0).beats(None)
    assert Score(1, 0.6, 9.0).beats(Score(1, 0.5, 1.0))
    assert Score(1, 0.5, 0.9).beats(Score(1, 0.5, 1.0))
    assert not Score(1, 0.5, 1.0).beats(Score(1, 0.5, 1.0)), "of equals the earlier epoch stays"
    assert not Score(1, 0.4, 0.1).beats(Score(1, 0.5, 1.0))


# ---------------------------------------------------------------- checkpoints


def test_the_checkpoint_reproduces_the_predictions(tmp_path: Path, cache: Path) -> None:
    run = run_of(tmp_path, cache, "features.normalise=zscore")
    tensors, description = load_checkpoint(run / "checkpoints" / "best")
    assert description["answers"][0] == "no"
    assert description["inputs"]["image"] == {"width": 8, "normalise": "zscore"}
    split = vqa_cache.open(cache).split("tiny/test")
    inputs = []
    for modality, keys, positions in (
        ("image", split.image_keys, split.image_positions),
        ("text", split.question_keys, split.question_positions),
    ):
        spec = description["features"][modality]
        table = vqa_cache.open(cache).find_table(spec, modality)
        rows = table.tensor()[torch.from_numpy(table.row_index(keys)[positions])]
        mean = tensors[f"normalise.{modality}.mean"]
        scale = tensors[f"normalise.{modality}.inverse_deviation"]
        inputs.append((rows.reshape(len(rows), -1).float() - mean) * scale)
    weights = [
        tensors[f"head.{name}"]
        for name in ("layers.0.weight", "layers.0.bias", "output.weight", "output.bias")
    ]
    hidden = torch.relu(torch.cat(inputs, dim=1) @ weights[0].T + weights[1])
    answers = (hidden @ weights[2].T + weights[3]).argmax(dim=1).tolist()
    rows = json.loads((run / "predictions.test.json").read_text())
    assert [row["answer"] for row in rows] == [description["answers"][a] for a in answers]


def test_a_cosine_checkpoint_holds_the_answer_matrix(tmp_path: Path, cache: Path) -> None:
    run = run_of(tmp_path, cache, head='name = "cosine"\nhidden = []')
    tensors, description = load_checkpoint(run / "checkpoints" / "best")
    assert list(tensors["head.answers"].shape) == [len(description["answers"]), 8]


def test_snapshots_keep_the_newest_and_the_best(tmp_path: Path, cache: Path) -> None:
    every = ["train.epochs=6", "train.snapshot_every=1"]
    run = run_of(tmp_path, cache, *every, "train.keep_last=2", "train.keep_best=0")
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["best", "step-00000060", "step-00000072"]
    assert load_checkpoint(run / "checkpoints" / "step-00000060")[1]["epoch"] == 5
    (tmp_path / "best").mkdir()
    run = run_of(tmp_path / "best", cache, *every, "train.keep_last=1", "train.keep_best=1")
    best = result_of(run)["best"]["epoch"]
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert names == {"best", f"step-{12 * best:08d}", "step-00000072"}


def test_failed_images_are_told_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset: SmallDataset = replace(small_dataset(), broken={1002: FAILED})
    build_cache(tmp_path / "cache", dataset)
    experiment = load_experiment(str(write_experiment(tmp_path)))
    console = Console(width=200)
    run = train_run(experiment, cache=tmp_path / "cache", runs=tmp_path / "runs", console=console)
    assert "tiny/test: 5 of 60 examples left out" in capsys.readouterr().out
    test = result_of(run)["metrics"]["test"]
    assert (test["n"], test["n_left_out"], test["n_predicted"]) == (55, 5, 55)
