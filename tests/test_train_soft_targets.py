"""Targets of all annotators, and the losses that take them, against plain restatements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train_evaluate import Fixed
from test_train_small_cache import (
    Item,
    build_cache,
    result_of,
    run_of,
    small_dataset,
    write_experiment,
)
from torch.nn import functional

import vqa_cache
from train.config.files import load_experiment
from train.engine.data import load_data
from train.engine.outputs import Wanted, run_model
from train.evaluation.evaluate import measure
from train.inputs.load import TrainingData
from train.inputs.soft_targets import annotators_of, soft_targets
from train.losses.binary_cross_entropy import BinaryCrossEntropy
from train.losses.kl_divergence import KlDivergence
from train.losses.soft_cross_entropy import SoftCrossEntropy

TEN = ("red",) * 5 + ("green",) * 2 + ("pink",) * 3
ASKED = [
    Item((1,), "what colour is it?", "red", TEN),
    Item((2,), "what colour is it?", "green", ("green",)),
    Item((3,), "what colour is it?", "red", ("green", "red")),
    Item((4,), "what colour is it?", "red", ()),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("soft") / "cache"
    build_cache(path, replace(small_dataset(), splits={"train": ASKED, "val": ASKED}))
    return path


def data_of(cache: Path, folder: Path) -> TrainingData:
    path = write_experiment(folder)
    typed = ["answers.k=2", 'answers.vocabulary=["red", "green"]']
    return load_data(load_experiment(str(path), typed), vqa_cache.open(cache))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # red, green; three annotators make an answer right, of two or one their number does
        ("scores", [[1.0, 2 / 3], [0, 1], [0.5, 0.5], [0, 0]]),
        # of those whose answer is in the vocabulary
        ("shares", [[5 / 7, 2 / 7], [0, 1], [0.5, 0.5], [0, 0]]),
    ],
)
def test_a_number_for_each_answer_from_all_annotators(
    cache: Path, tmp_path: Path, kind: Any, expected: list[list[float]]
) -> None:
    data = data_of(cache, tmp_path)
    assert data.vocabulary.answers == ("red", "green")
    found = soft_targets(data.parts["train"], data.vocabulary, kind)
    assert torch.allclose(found[torch.arange(4)], torch.tensor(expected))
    assert torch.allclose(found[torch.tensor([2, 0])], torch.tensor(expected)[[2, 0]])


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(2)
    targets = torch.rand(5, 4, generator=draw)
    targets = targets / targets.sum(dim=1, keepdim=True)
    targets[1] = 0
    return torch.randn(5, 4, generator=draw) * 3, targets


def test_binary_cross_entropy_is_summed_over_the_answers() -> None:
    logits, targets = drawn()
    shares = torch.sigmoid(logits)
    each = -(targets * shares.log() + (1 - targets) * (1 - shares).log())
    assert torch.allclose(BinaryCrossEntropy()(logits, targets), each.sum(dim=1).mean())


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_soft_cross_entropy_and_divergence_by_hand(temperature: float) -> None:
    logits, targets = drawn()
    log_shares = functional.log_softmax(logits / temperature, dim=1)
    kept = [0, 2, 3, 4]
    cross = -(targets * log_shares).sum(dim=1)[kept].mean()
    assert torch.allclose(SoftCrossEntropy(temperature=temperature)(logits, targets), cross)
    divergence = functional.kl_div(log_shares[kept], targets[kept], reduction="batchmean")
    assert torch.allclose(KlDivergence(temperature=temperature)(logits, targets), divergence)


def test_against_one_label_all_of_them_are_the_cross_entropy_of_that_label() -> None:
    logits, _ = drawn()
    labels = torch.tensor([0, 3, 1, 2, 2])
    targets = functional.one_hot(labels, 4).float()
    expected = functional.cross_entropy(logits, labels)
    for loss in (SoftCrossEntropy(), KlDivergence()):
        assert torch.allclose(loss(logits, targets), expected)
    nothing = torch.zeros(2, 4)
    assert float(KlDivergence()(logits[:2], nothing)) == 0


@pytest.mark.parametrize("name", ["binary_cross_entropy", "soft_cross_entropy", "kl_divergence"])
def test_a_training_with_soft_targets_learns(name: str, tmp_path: Path) -> None:
    build_cache(tmp_path / "cache", small_dataset())
    run = run_of(
        tmp_path, tmp_path / "cache", f"loss.name={name}", "baselines=off", "train.epochs=6"
    )
    result = result_of(run)
    majority = 0.45
    assert result["metrics"]["train"]["accuracy"] > majority


def test_the_divergence_from_all_annotators_is_that_of_torch(cache: Path, tmp_path: Path) -> None:
    data = data_of(cache, tmp_path)
    part = data.parts["val"]
    logits = torch.tensor([0.3, -1.2])
    wanted = Wanted(top=False, annotators=annotators_of(part, data.vocabulary))
    found = run_model(Fixed(logits), part, data.tables, temperature=0.5, wanted=wanted)
    log_probabilities = (logits / 0.5).log_softmax(dim=0)
    shares = torch.tensor([[5 / 7, 2 / 7], [0, 1], [0.5, 0.5]])
    expected = [float(functional.kl_div(log_probabilities, own, reduction="sum")) for own in shares]
    assert found.divergence is not None
    assert found.divergence[:3] == pytest.approx(expected, rel=1e-5)
    assert np.isnan(found.divergence[3]), "no annotator's answer is a class"
    figures = measure(part, found, data.vocabulary)
    assert figures["annotator_divergence"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_one_answer_a_question_has_no_divergence_of_its_own(tmp_path: Path) -> None:
    build_cache(tmp_path / "cache", small_dataset(8, 4))
    data = data_of(tmp_path / "cache", tmp_path)
    assert annotators_of(data.parts["test"], data.vocabulary) is None
    found = run_model(Fixed(torch.zeros(2)), data.parts["test"], data.tables, wanted=Wanted())
    figures = measure(data.parts["test"], found, data.vocabulary)
    assert figures["annotator_divergence"] is None
    why = "one answer a question: the divergence is the cross-entropy"
    assert figures["reasons"]["annotator_divergence"] == why
