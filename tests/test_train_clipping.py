"""Clipping of gradients, and early stopping, and weights that begin uniform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train_small_cache import build_cache, result_of, run_of, small_dataset, write_experiment
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

import vqa_cache
from train.config.files import load_experiment
from train.engine import optimizers, schedules
from train.engine.build import build_model
from train.engine.clipping import Clipping
from train.engine.data import load_data
from train.engine.model import AnswerModel
from train.engine.step import TrainingStep
from train.errors import ConfigError
from train.fusion.concat import Concat
from train.heads.mlp import MlpHead
from train.inputs.specification import Input
from train.lanes.loss import LaneCrossEntropy
from train.lanes.optimizer import LaneAdam
from train.lanes.stack import LaneModel
from train.lanes.step import LaneStep
from train.losses.cross_entropy import CrossEntropy


def gradients(seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw) * 3 for shape in ((4, 5), (5,), ())]


def by_torch(clipping: Clipping, own: list[torch.Tensor]) -> list[torch.Tensor]:
    parameters = [torch.zeros_like(one, requires_grad=True) for one in own]
    for parameter, gradient in zip(parameters, own, strict=True):
        parameter.grad = gradient.clone()
    if clipping.value:
        clip_grad_value_(parameters, clipping.value)
    if clipping.norm:
        clip_grad_norm_(parameters, clipping.norm)
    return [p.grad for p in parameters if p.grad is not None]


@pytest.mark.parametrize(
    "clipping",
    [Clipping(norm=1.0), Clipping(value=0.5), Clipping(norm=1.0, value=0.5), Clipping(norm=1e6)],
    ids=str,
)
def test_clipped_as_by_torch_alone_and_in_lanes(clipping: Clipping) -> None:
    own = gradients()
    before = torch.cat([one.flatten() for one in own]).norm()
    expected = by_torch(clipping, own)
    assert torch.allclose(clipping(own), before)
    for found, theirs in zip(own, expected, strict=True):
        assert torch.allclose(found, theirs, atol=1e-6)
    lanes = [torch.stack(pair) for pair in zip(gradients(0), gradients(1), strict=True)]
    clipping.lanes(lanes)
    for lane in range(2):
        expected = by_torch(clipping, gradients(lane))
        for found, theirs in zip(lanes, expected, strict=True):
            assert torch.allclose(found[lane], theirs, atol=1e-6)


@pytest.mark.parametrize("weight_decay", [[0.0, 0.0], [0.3, 0.01]], ids=["none", "decay"])
def test_lanes_of_adam_with_clipping_are_its_single_runs(weight_decay: list[float]) -> None:
    def build(seed: int) -> AnswerModel:
        torch.manual_seed(seed)
        return AnswerModel(Concat({"image": 4}), MlpHead(4, 3, hidden=[5]))

    clipping, lrs = Clipping(norm=0.1), [1e-2, 3e-3]
    lanes = LaneModel([build(0), build(1)], [0, 1])
    step = LaneStep(
        lanes,
        LaneCrossEntropy([CrossEntropy(), CrossEntropy()]),
        LaneAdam(
            lanes.parameters(),
            lanes.decays,
            lr=torch.tensor(lrs, dtype=torch.float64),
            weight_decay=torch.tensor(weight_decay, dtype=torch.float64),
        ),
        schedule=schedules.constant(20),
        clipping=clipping,
    )
    draw = torch.Generator().manual_seed(3)
    batch = {"image": Input(torch.randn(9, 4, generator=draw))}
    targets = torch.arange(9) % 3
    for number in range(20):
        step(batch, targets, number)
    for lane, (lr, decay) in enumerate(zip(lrs, weight_decay, strict=True)):
        single = build(lane)
        alone = TrainingStep(
            single,
            CrossEntropy(),
            optimizers.Adam(single, lr=lr, weight_decay=decay),
            schedule=schedules.constant(20),
            seed=lane,
            clipping=clipping,
        )
        for number in range(20):
            alone(batch, targets, number)
        for own, together in zip(single.parameters(), lanes.parameters(), strict=True):
            assert torch.allclose(together[lane].view_as(own), own, atol=1e-5)


def test_nothing_is_clipped_unless_asked() -> None:
    assert not Clipping()
    assert Clipping(norm=1.0)
    assert Clipping(value=1.0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clipping") / "cache"
    build_cache(path, small_dataset())
    return path


def norms(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["gradient_norm"] for row in rows if "gradient_norm" in row]


def test_the_norm_in_the_log_is_that_before_clipping(cache: Path, tmp_path: Path) -> None:
    """The first step's gradient is the same with and without; only what it does differs."""
    settings = ("baselines=off", "train.epochs=1")
    free = run_of(tmp_path, cache, *settings)
    kept = run_of(tmp_path, cache, *settings, "train.clip_norm=1e-3")
    assert norms(kept)[0] == pytest.approx(norms(free)[0], rel=1e-5)
    assert norms(kept)[0] > 0.01
    assert free.name != kept.name


def test_a_training_ends_after_so_many_evaluations_without_a_better_one(
    cache: Path, tmp_path: Path
) -> None:
    settings = ("baselines=off", "train.epochs=30", "optimizer.lr=0.03")
    long = result_of(run_of(tmp_path, cache, *settings))
    run = run_of(tmp_path, cache, *settings, "train.patience=3")
    short = result_of(run)
    per_epoch = long["steps"] // 30
    assert short["steps"] == (short["best"]["epoch"] + 3) * per_epoch < long["steps"]
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    scores = [(-row["accuracy"], row["cross_entropy"]) for row in rows if "accuracy" in row]
    assert min(scores) == scores[-4]
    assert short["metrics"]["test"]["n"] == long["metrics"]["test"]["n"]


def test_weights_begin_between_the_bounds(tmp_path: Path, cache: Path) -> None:
    path = write_experiment(tmp_path)
    experiment = load_experiment(str(path), ["train.uniform_init=0.08"])
    data = load_data(experiment, vqa_cache.open(cache))
    model = build_model(experiment.config, data, data.tables)
    values = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert float(values.abs().max()) <= 0.08
    assert float(values.std()) == pytest.approx(0.08 / 3**0.5, rel=0.1)


def test_a_uniform_beginning_would_replace_given_word_vectors(tmp_path: Path) -> None:
    path = write_experiment(
        tmp_path,
        features='dataset = "tiny"',
        question='name = "word_lstm"\nvectors = "glove.txt"',
        train="uniform_init = 0.08",
    )
    with pytest.raises(ConfigError, match=r"train.uniform_init = 0.08: would replace the word"):
        load_experiment(str(path))
    load_experiment(str(path), ["question.frozen=true"])
