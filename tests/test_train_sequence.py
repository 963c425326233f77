"""The head whose layers an experiment lists: plain restatements of the journals' classifiers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_train_small_cache import write_experiment
from torch import nn

from train.config.files import load_experiment
from train.engine.model import AnswerModel
from train.errors import ConfigError
from train.fusion.concat import Concat
from train.heads.sequence import SequenceHead
from train.inputs.specification import Input
from train.lanes.stack import LaneModel, is_alike
from train.layers.maxout import Maxout

# what each journal writes, and the same in torch's words
WRITTEN: dict[str, tuple[list[int | str], list[nn.Module]]] = {
    "relu, then batch norm": (
        [8, "relu", "batch_norm"],
        [nn.Linear(6, 8), nn.ReLU(), nn.BatchNorm1d(8)],
    ),
    "batch norm, then relu": (
        [8, "batch_norm", "relu"],
        [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU()],
    ),
    "tanh": ([8, "tanh", 5, "tanh"], [nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh()]),
    "none": ([], []),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_layers_come_in_the_order_in_which_they_are_listed(name: str) -> None:
    pieces, layers = WRITTEN[name]
    head = SequenceHead(6, 3, layers=pieces)
    reference = nn.Sequential(*layers, nn.Linear(head.output.in_features, 3))
    for own, theirs in zip(head.parameters(), reference.parameters(), strict=True):
        theirs.data.copy_(own.data)
    x = torch.randn(9, 6)
    for training in (True, False):
        assert torch.allclose(head.train(training)(x), reference.train(training)(x), atol=1e-6)


def test_dropout_has_its_place_and_its_share() -> None:
    head = SequenceHead(6, 3, layers=["dropout=0.5", 512, "dropout=0.25", "tanh"]).train()
    zeros = []
    head.layers[2].register_forward_hook(
        lambda module, given, made: zeros.append((made == 0).float().mean())
    )
    head(torch.ones(64, 6))
    assert float(zeros[0]) == pytest.approx(0.25, abs=0.02)


def test_maxout_keeps_the_largest_of_neighbours() -> None:
    x = torch.tensor([[1.0, 4.0, -2.0, -3.0, 0.0, 5.0]])
    assert Maxout(2)(x).tolist() == [[4.0, -2.0, 5.0]]
    assert Maxout(3)(x[None]).tolist() == [[[4.0, 5.0]]]
    head = SequenceHead(6, 3, layers=[8, "maxout=2"])
    assert head.output.in_features == 4
    with pytest.raises(ValueError, match="maxout=3 behind a width of 8, no multiple of 3"):
        SequenceHead(6, 3, layers=[8, "maxout=3"])


@pytest.mark.parametrize("piece", ["gelu", "dropout", "dropout=1", "maxout=1", "maxout=x", "0.5"])
def test_a_piece_that_is_none_is_told_before_anything_is_loaded(tmp_path: Path, piece: str) -> None:
    path = write_experiment(tmp_path, head=f'name = "sequence"\nlayers = [4, "{piece}"]')
    with pytest.raises(ConfigError) as error:
        load_experiment(str(path))
    assert "'relu', 'tanh', 'batch_norm', 'dropout=0.5'" in str(error.value)
    assert str(error.value).startswith("head.layers = ")


def test_lanes_compute_what_single_heads_do() -> None:
    def build(seed: int) -> AnswerModel:
        torch.manual_seed(seed)
        fusion = Concat({"image": 4, "text": 2})
        return AnswerModel(
            fusion, SequenceHead(6, 3, layers=["batch_norm", 8, "maxout=2", "tanh", 5, "relu"])
        )

    models = [build(seed) for seed in range(3)]
    assert is_alike(models[0])
    lanes = LaneModel(models, [0, 1, 2])
    inputs = {"image": Input(torch.randn(7, 4)), "text": Input(torch.randn(7, 2))}
    found = lanes(inputs)
    for lane, model in enumerate(models):
        assert torch.allclose(found[lane], model(inputs), atol=1e-6)
