"""A pack's steps as CUDA graphs, which a stand-in repeats where there is no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_train_cuda_graph import STEPS, examples_of, needs_gpu
from test_train_cuda_graph import as_on_a_gpu as as_on_a_gpu
from test_train_cuda_graph import stand_in as stand_in
from test_train_small_cache import QUIET, write_experiment

import vqa_cache
from train.config.files import load_experiment
from train.engine import cuda_graph, schedules
from train.engine.clipping import Clipping
from train.engine.cuda_graph import check_against_eager
from train.engine.data import load_data
from train.engine.model import AnswerModel
from train.fusion.concat import Concat
from train.heads.mlp import MlpHead
from train.lanes.layers import LaneDropout, Streams
from train.lanes.loss import LaneCrossEntropy
from train.lanes.optimizer import LaneAdamW
from train.lanes.stack import LaneModel
from train.lanes.step import LaneStep
from train.loop import training_loop
from train.loop.training_loop import Watch
from train.losses.cross_entropy import CrossEntropy
from train.sweep.pack import Outcome, PackTraining, train_pack
from vqa_cache.system.device import CPU
from vqa_cache.system.signals import Stopped

SILENT = Watch(QUIET)
RATES = ("1e-4", "1e-2", "1e38")
HEAD = 'name = "mlp"\nhidden = [16]\ndropout = 0.3\nbatch_norm = true'
ATTENTION = 'name = "stacked"\nhidden = 8\ndropout = 0.2'


def trained(folder: Path, cache: Path, watch: Watch = SILENT, **sections: str) -> list[Outcome]:
    """Three rates and two seeds, of which halving leaves few; one rate diverges."""
    path = str(write_experiment(folder, **sections))
    changes = [
        [f"optimizer.lr={rate}", f"seed={seed}", f"head.dropout={share}"]
        for seed, share in ((0, 0.3), (1, 0.1))
        for rate in RATES
    ]
    wanted = ["train.batch_size=23", "train.clip_norm=1.0"]  # the last batch is smaller
    experiments = [load_experiment(path, [*wanted, *change]) for change in changes]
    data = load_data(experiments[0], vqa_cache.open(cache))
    configs = [experiment.config for experiment in experiments]
    return train_pack(configs, data, pruner="halving", what="pack", watch=watch)


def test_a_pack_comes_to_the_same_with_graphs_and_without(
    tmp_path: Path, cache: Path, as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured: list[int] = []
    capture = cuda_graph.capture

    def counted(work: Any, restore: Any, generators: Any = ()) -> Any:
        captured.append(len(generators))
        return capture(work, restore, generators)

    monkeypatch.setattr(cuda_graph, "capture", counted)
    graphs = trained(tmp_path, cache, head=HEAD)
    assert {outcome.status for outcome in graphs} == {"finished", "pruned", "diverged"}
    assert len(captured) == 6, "two sizes of batches; again after each halving"
    assert captured[0] == 2, "a stream for each seed and share"
    monkeypatch.setattr(training_loop, "CPU", CPU)
    assert graphs == trained(tmp_path, cache, head=HEAD)
    assert len(captured) == 6


def test_lanes_in_turn_run_kernel_by_kernel_and_that_is_said(
    tmp_path: Path, cache: Path, as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(training_loop, "say", lambda _, line: said.append(line))
    trained(tmp_path, cache, attention=ATTENTION)
    assert set(said) == {
        "pack: steps run kernel by kernel: lanes take turns at the random state, which a graph "
        "would not exchange"
    }


def test_all_that_a_step_of_lanes_changes_is_restored_after_a_capture(
    tmp_path: Path, cache: Path, stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = load_experiment(str(write_experiment(tmp_path, head=HEAD)))
    data = load_data(experiment, vqa_cache.open(cache))
    training = PackTraining(
        [experiment.config] * 2, data, pruner="none", what="", watch=Watch(QUIET)
    )
    engine = training.engine
    assert isinstance(engine, LaneStep)
    before = {**engine.state(), **engine.model.state_dict()}
    before = {name: tensor.clone() for name, tensor in before.items()}
    monkeypatch.setattr(training_loop, "CPU", torch.device("meta"))
    assert isinstance(training._make_steps(), cuda_graph.CapturedSteps)
    after = {**engine.state(), **engine.model.state_dict()}
    assert "updates" in after
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_scales_of_dropout_are_made_once_and_again_for_fewer_lanes() -> None:
    """Made at every step, their copy would have the CPU wait for the GPU."""
    dropout = LaneDropout([0.5, 0.0, 0.25])
    Streams([0, 1, 2], [dropout], CPU)
    dropout(torch.ones(3, 4, 8))
    scales = dropout._scales
    dropout(torch.ones(3, 4, 8))
    assert dropout._scales is scales
    dropout.keep(torch.tensor([0, 1]))
    Streams([0, 1], [dropout], CPU)
    assert set(dropout(torch.ones(2, 4, 8))[1].flatten().tolist()) == {1.0}


def build(device: torch.device = CPU) -> LaneStep:
    """Two lanes of different rates and shares of dropout."""
    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        mlp = MlpHead(6, 4, hidden=[16], dropout=0.3 * seed, dropout_input=0.1)
        models.append(AnswerModel(Concat({"x": 6}), mlp).to(device))
    model = LaneModel(models, [3, 4])
    rates = torch.tensor([0.02, 0.01], dtype=torch.float64, device=device)
    return LaneStep(
        model,
        LaneCrossEntropy([CrossEntropy(), CrossEntropy()], device),
        LaneAdamW(model.parameters(), model.decays, lr=rates, weight_decay=rates),
        schedule=schedules.cosine(STEPS, warmup_steps=5),
        clipping=Clipping(norm=1.0),
    )


def test_graphs_of_lanes_give_the_numbers_of_eager_steps(stand_in: None) -> None:
    assert check_against_eager(build, *examples_of()) == {"losses": 0.0, "weights": 0.0}


@needs_gpu
def test_graphs_of_lanes_on_a_gpu_give_the_numbers_of_eager_steps() -> None:
    device = torch.device("cuda", 0)
    check_against_eager(lambda: build(device), *examples_of(device))


def test_a_signal_ends_an_evaluation_of_lanes(tmp_path: Path, cache: Path) -> None:
    asked = 0

    def stopping() -> bool:
        nonlocal asked
        asked += 1
        return asked == 10  # nine steps an epoch, then the first batch of its evaluation

    with pytest.raises(Stopped):
        trained(tmp_path, cache, Watch(QUIET, stopping=stopping), head=HEAD)
    assert asked == 10
