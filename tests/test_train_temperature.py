"""The metric is of the probabilities that the model predicts with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_train_evaluate import Fixed
from test_train_small_cache import result_of, run_of, write_experiment

import vqa_cache
from train.config.files import load_experiment
from train.engine.data import load_data
from train.engine.outputs import run_model
from train.losses.cross_entropy import CrossEntropy


def test_the_metric_is_the_loss_of_the_same_rows(tmp_path: Path, cache: Path) -> None:
    data = load_data(load_experiment(str(write_experiment(tmp_path))), vqa_cache.open(cache))
    part = data.parts["test"]
    logits = torch.linspace(-1, 1, len(data.vocabulary))
    outputs = run_model(Fixed(logits), part, data.tables, temperature=0.1)
    loss = CrossEntropy(temperature=0.1)(logits.expand(len(part), -1), part.truth)
    assert outputs.cross_entropy.mean() == pytest.approx(float(loss), rel=1e-6)
    plain = run_model(Fixed(logits), part, data.tables)
    assert plain.cross_entropy.mean() != pytest.approx(float(loss), rel=0.1)


def test_a_run_measures_with_the_temperature_it_trained_with(tmp_path: Path, cache: Path) -> None:
    run = run_of(
        tmp_path,
        cache,
        "loss.temperature=0.1",
        "head.dropout=0.0",
        "train.overfit=16",
        "train.epochs=150",
        "train.evaluate_every=150",
        "train.snapshot_every=0",
    )
    losses = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [row["train_loss"] for row in losses if "train_loss" in row][-1]
    metric = result_of(run)["metrics"]["train"]["cross_entropy"]
    assert last < 0.05
    assert metric == pytest.approx(last, rel=0.2), "one batch holds all the rows"
    described = json.loads((run / "checkpoints" / "best" / "model.json").read_text())
    assert described["temperature"] == 0.1
