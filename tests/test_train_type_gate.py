"""The gate of answer types and the loss with a term for them, each against a plain restatement."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train_resume import train_until
from test_train_small_cache import (
    IMAGE,
    QUIET,
    TEXT,
    build_cache,
    digests,
    result_of,
    run_of,
    small_dataset,
    write_experiment,
)

import vqa_cache
from train.config.files import load_experiment
from train.config.schema import Config
from train.engine.build import make_model
from train.engine.data import load_data
from train.errors import TrainError
from train.heads.mlp import MlpHead
from train.heads.type_gate import TypeGateHead
from train.inputs.specification import Vector
from train.inputs.vocabulary import UNTYPED, Vocabulary, typed
from train.lanes.loss import LaneTypeCrossEntropy
from train.loop.checkpoint import load_checkpoint
from train.loop.training_loop import Watch
from train.losses import IGNORED
from train.losses.type_cross_entropy import TypeCrossEntropy
from train.predict.model import TrainedModel
from train.predict.sources import Sources
from train.sweep.pack import pack_key, train_pack

TYPES = torch.tensor([1, 0, 1, 2, 0, 1])
GATED = ("head.name=type_gate", "head.hidden=[16]", "loss.name=type_cross_entropy")


def gate(**options: object) -> TypeGateHead:
    torch.manual_seed(0)
    return TypeGateHead(5, len(TYPES), TYPES, hidden=[7], **options).eval()


def shares(scores: list[float]) -> list[float]:
    total = sum(map(math.exp, scores))
    return [math.exp(score) / total for score in scores]


def restated(head: TypeGateHead, row: torch.Tensor) -> list[float]:
    """log(p(type) p(answer | type)) of one example, an answer at a time."""
    scores = MlpHead.forward(head, row).tolist()
    of_type = shares(head.gate(row).tolist())
    found = []
    for answer, kind in enumerate(TYPES.tolist()):
        alike = [other for other, its in enumerate(TYPES.tolist()) if its == kind]
        among = shares([scores[other] for other in alike])[alike.index(answer)]
        found.append(math.log(of_type[kind]) + math.log(among))
    return found


def test_logits_are_those_of_the_restatement_and_add_up_to_one() -> None:
    head, rows = gate(), torch.randn(4, 5)
    found = head(rows)
    assert torch.allclose(found, torch.tensor([restated(head, row) for row in rows]), atol=1e-5)
    assert torch.allclose(found.exp().sum(dim=-1), torch.ones(4))
    of_types = torch.stack([found.exp()[:, kind == TYPES].sum(-1) for kind in range(3)], dim=-1)
    assert torch.allclose(of_types, head.gate(rows).softmax(dim=-1), atol=1e-6)


def test_answers_of_an_improbable_type_are_masked_whatever_the_head_says() -> None:
    head, rows = gate(), torch.randn(4, 5)
    with torch.no_grad():
        head.output.bias[TYPES == 1] += 1e4  # it is sure of answers of another type
        head.gate.bias.copy_(torch.tensor([50.0, 0.0, 0.0]))
    assert (TYPES[head(rows).argmax(dim=-1)] == 0).all()
    assert head(rows).isfinite().all()


def test_its_parameters_are_those_of_the_layers_and_of_one_to_the_types() -> None:
    given = {"image": Vector(6), "text": Vector(5)}
    mlp = load_experiment("mlp_answers", ["head.hidden=[7]"]).config
    gated = load_experiment("mlp_answers", ["head.name=type_gate", "head.hidden=[7]"]).config
    without, with_ = (
        sum(p.numel() for p in make_model(config, given, len(TYPES), types=TYPES).parameters())
        for config in (mlp, gated)
    )
    assert with_ - without == (6 + 5 + 1) * 3


def test_types_must_fit_the_vocabulary() -> None:
    with pytest.raises(ValueError, match=r"has shape \[6\]; expected \[4\], a type for every"):
        TypeGateHead(5, 4, TYPES, hidden=[])


# ---------------------------------------------------------------- loss


def plain_loss(logits: torch.Tensor, targets: torch.Tensor, weight: float) -> float:
    total, kept = 0.0, 0
    for row, truth in zip(logits.tolist(), targets.tolist(), strict=True):
        if truth == IGNORED:
            continue
        probable = shares(row)
        same = [p for p, kind in zip(probable, TYPES.tolist(), strict=True) if kind == TYPES[truth]]
        total -= math.log(probable[truth]) + weight * math.log(sum(same))
        kept += 1
    return total / kept


def test_the_loss_is_that_of_the_restatement() -> None:
    logits, targets = torch.randn(5, 6), torch.tensor([0, IGNORED, 3, 4, 1])
    found = TypeCrossEntropy(None, TYPES, type_weight=0.5)(logits, targets)
    assert found.item() == pytest.approx(plain_loss(logits, targets, 0.5), abs=1e-5)
    tempered = TypeCrossEntropy(None, TYPES, temperature=2.0)(2 * logits, targets)
    assert tempered.item() == pytest.approx(plain_loss(logits, targets, 1.0), abs=1e-5)
    nothing = torch.full((5,), IGNORED)
    assert TypeCrossEntropy(None, TYPES)(logits, nothing).item() == 0


def test_the_loss_of_every_lane_is_its_own() -> None:
    counts = torch.tensor([5, 1, 2, 3, 3, 9])
    losses = [
        TypeCrossEntropy(counts, TYPES, type_weight=0.5, class_weight_power=1.0),
        TypeCrossEntropy(counts, TYPES, type_weight=0.0, temperature=0.5),
        TypeCrossEntropy(counts, TYPES, label_smoothing=0.1),
    ]
    logits, targets = torch.randn(3, 5, 6), torch.tensor([0, IGNORED, 3, 4, 1])
    expected = torch.stack([loss(own, targets) for loss, own in zip(losses, logits, strict=True)])
    lanes = LaneTypeCrossEntropy(losses)
    assert torch.allclose(lanes(logits, targets), expected, atol=1e-6)
    assert torch.allclose(lanes(logits[1:2], targets, slice(1, 2)), expected[1:2], atol=1e-6)
    lanes.keep(torch.tensor([2, 0]))
    assert torch.allclose(lanes(logits[[2, 0]], targets), expected[[2, 0]], atol=1e-6)


# ---------------------------------------------------------------- types of a vocabulary


def test_an_answer_has_the_type_of_most_of_its_examples_in_train() -> None:
    names = ["object", "colour", "number"]
    truth = np.array([0, 0, 0, 1, 1, 2, -1, 4])  # 4: outside the vocabulary
    types = np.array([0, 1, 1, 0, 1, -1, 2, 2], dtype=np.int32)
    found = typed(Vocabulary(("orange", "rose", "what", "never")), truth, types, names)
    assert found.types == ("colour", "colour", UNTYPED, UNTYPED)  # of equals the first by name


def test_types_are_those_of_train_alone(tmp_path: Path) -> None:
    dataset = small_dataset(train=12, test=6)
    dataset.splits["test"] = [replace(one, answer_type="x") for one in dataset.splits["test"]]
    build_cache(tmp_path / "cache", dataset)
    run = run_of(tmp_path, tmp_path / "cache", *GATED)
    [folder, *_] = sorted(path.parent for path in run.rglob("model.json"))
    tensors, described = load_checkpoint(folder)
    assert dict(zip(described["answers"], described["answer_types"], strict=True)) == {
        answer: "yes/no" if answer in ("yes", "no") else "other" for answer in described["answers"]
    }
    assert set(result_of(run)["metrics"]["test"]["by_answer_type"]) == {"x"}
    # a prediction makes the same gate without any data set
    config = load_experiment(str(run / "config.toml")).config
    opened = vqa_cache.open(tmp_path / "cache")
    given = {"image": Vector(opened.find_table(IMAGE, "image").row_shape[-1] * 2),
             "text": Vector(opened.find_table(TEXT, "text").row_shape[0])}  # fmt: skip
    head: Any = TrainedModel(config, folder, Sources({}, given, None), "fp32").model.head
    assert torch.equal(head.answer_types, tensors["head.answer_types"])
    assert torch.equal(head.gate.weight, tensors["head.gate.weight"])


def test_a_data_set_without_types_is_refused_in_one_line(tmp_path: Path) -> None:
    dataset = small_dataset(train=12, test=6)
    for split, items in dataset.splits.items():
        dataset.splits[split] = [replace(one, answer_type=None) for one in items]
    build_cache(tmp_path / "cache", dataset)
    told = (
        "head 'type_gate' and loss 'type_cross_entropy': the types of answers are read from train, "
        "and of tiny/train none of 55 training examples has both an answer of the vocabulary and "
        "an answer type; choose another, or give the data set's questions an answer_type"
    )
    with pytest.raises(TrainError) as error:
        run_of(tmp_path, tmp_path / "cache", *GATED)
    assert str(error.value) == told
    assert run_of(tmp_path, tmp_path / "cache", "train.epochs=1").is_dir()  # others need none


def test_a_stopped_gated_run_goes_on_to_the_same_bytes(tmp_path: Path, cache: Path) -> None:
    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
    undisturbed = train_until(tmp_path / "whole", cache, 0, *GATED)
    assert undisturbed is not None
    assert train_until(tmp_path / "stopped", cache, 13, *GATED) is None
    run = train_until(tmp_path / "stopped", cache, 0, *GATED)
    assert run is not None
    assert digests(run) == digests(undisturbed)


def test_trials_of_other_weights_share_a_pass(tmp_path: Path, cache: Path) -> None:
    path = write_experiment(tmp_path)
    experiments = [
        load_experiment(str(path), [*GATED, "train.batch_size=100", f"loss.type_weight={weight}"])
        for weight in (0.0, 50.0)
    ]
    configs = [one.config for one in experiments]
    assert pack_key(configs[0]) == pack_key(configs[1])
    data = load_data(experiments[0], vqa_cache.open(cache))

    def scores(*chosen: Config) -> list[float]:
        found = train_pack(chosen, data, pruner="none", what="", watch=Watch(QUIET))
        return [one.score.cross_entropy for one in found if one.score]

    together = scores(*configs)
    assert together == pytest.approx([*scores(configs[0]), *scores(configs[1])], abs=1e-4)
    assert together[0] != pytest.approx(together[1], abs=1e-4)
