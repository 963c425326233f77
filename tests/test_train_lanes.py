"""Lanes against single runs and against torch.func.vmap of the single model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from train.config.seeds import batch_bounds, epoch_order
from train.engine import optimizers, schedules
from train.engine.model import AnswerModel
from train.engine.step import TrainingStep
from train.fusion.concat import Concat
from train.fusion.product import Product
from train.heads.cosine import CosineHead
from train.heads.linear import LinearHead
from train.heads.mlp import MlpHead
from train.inputs.specification import Input
from train.lanes.loss import LaneCrossEntropy
from train.lanes.optimizer import LaneAdamW
from train.lanes.stack import LaneModel, is_alike
from train.lanes.step import LaneStep
from train.losses import IGNORED
from train.losses.cross_entropy import CrossEntropy


class OwnHead(nn.Linear):
    """A user's own: it extends a layer that has lanes, and computes something else."""

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(fused)


SIZES = {"image": 6, "text": 5}
ANSWERS, EXAMPLES, BATCH, STEPS = 7, 75, 16, 50
COUNTS = torch.tensor([40, 20, 5, 5, 3, 1, 1])


@dataclass(frozen=True)
class Lane:
    """What differs between lanes."""

    lr: float = 1e-2
    weight_decay: float = 0.01
    dropout: float = 0.0
    temperature: float = 1.0
    label_smoothing: float = 0.0
    class_weight_power: float = 0.0
    seed: int = 0

    def loss(self) -> CrossEntropy:
        return CrossEntropy(
            COUNTS,
            label_smoothing=self.label_smoothing,
            temperature=self.temperature,
            class_weight_power=self.class_weight_power,
        )


LANES = [
    Lane(),
    Lane(lr=3e-2, weight_decay=1.0),
    Lane(dropout=0.3, seed=1),
    Lane(dropout=0.5, label_smoothing=0.1, class_weight_power=0.5, seed=2),
    Lane(temperature=0.5, class_weight_power=1.0),
    Lane(dropout=0.3, seed=1, lr=1e-3),
]
MODELS: dict[str, dict[str, Any]] = {
    "linear": {"head": "linear"},
    "mlp": {"head": "mlp", "hidden": [8]},
    "mlp, batch norm": {"head": "mlp", "hidden": [9, 8, 7], "batch_norm": True},
    "mlp, batch norm of the input": {"head": "mlp", "hidden": [8], "batch_norm_input": True},
    "mlp, product": {"head": "mlp", "hidden": [8], "product": {"dim": 6}},
    "linear, product of unit length": {
        "head": "linear",
        "product": {"dim": 6, "l2": True, "activation": "none"},
    },
    "linear, product of images of unit length": {
        "head": "linear",
        "product": {"dim": 6, "l2_inputs": ["image"], "l2_inputs_at": "evaluation"},
    },
    "cosine": {"head": "cosine", "hidden": [8], "batch_norm": True, "answer_bias": True},
    "cosine without hidden layers": {"head": "cosine", "hidden": [], "scaled": False},
}


def build(lane: Lane, *, head: str, product: Any = None, **options: Any) -> AnswerModel:
    torch.manual_seed(lane.seed)
    fusion = Product(SIZES, **product) if product else Concat(SIZES)
    width = fusion.out_features
    if head == "linear":
        made: nn.Module = LinearHead(width, ANSWERS, dropout_input=lane.dropout)
    elif head == "mlp":
        made = MlpHead(width, ANSWERS, dropout=lane.dropout, dropout_input=lane.dropout, **options)
    else:
        vectors = torch.randn(ANSWERS, 4, generator=torch.Generator().manual_seed(5))
        made = CosineHead(width, ANSWERS, vectors, dropout=lane.dropout, **options)
    return AnswerModel(fusion, made)


def batches() -> list[tuple[Mapping[str, Input], torch.Tensor]]:
    """STEPS batches; the last of each epoch is smaller, and some targets are ignored."""
    draw = torch.Generator().manual_seed(9)
    rows = {name: torch.randn(EXAMPLES, width, generator=draw) for name, width in SIZES.items()}
    targets = torch.randint(IGNORED, ANSWERS, (EXAMPLES,), generator=draw)
    made = []
    for epoch in range(STEPS):
        order = epoch_order(EXAMPLES, data_seed=0, epoch=epoch)
        for first, last in batch_bounds(EXAMPLES, BATCH):
            chosen = order[first:last]
            inputs = {name: Input(values[chosen]) for name, values in rows.items()}
            made.append((inputs, targets[chosen]))
    return made[:STEPS]


def lane_step(lanes: list[Lane], models: list[AnswerModel]) -> LaneStep:
    model = LaneModel(models, [lane.seed for lane in lanes])
    optimizer = LaneAdamW(
        model.parameters(),
        model.decays,
        lr=torch.tensor([lane.lr for lane in lanes], dtype=torch.float64),
        weight_decay=torch.tensor([lane.weight_decay for lane in lanes], dtype=torch.float64),
    )
    schedule = schedules.cosine(STEPS, warmup_steps=5)
    return LaneStep(
        model, LaneCrossEntropy([lane.loss() for lane in lanes]), optimizer, schedule=schedule
    )


def train_lanes(lanes: list[Lane], **model: Any) -> LaneStep:
    step = lane_step(lanes, [build(lane, **model) for lane in lanes])
    for number, (inputs, targets) in enumerate(batches()):
        step(inputs, targets, number)
    return step


@cache
def train_alone(lane: Lane, name: str) -> AnswerModel:
    single = build(lane, **MODELS[name])
    step = TrainingStep(
        single,
        lane.loss(),
        optimizers.AdamW(single, lr=lane.lr, weight_decay=lane.weight_decay),
        schedule=schedules.cosine(STEPS, warmup_steps=5),
        seed=lane.seed,
    )
    for number, (inputs, targets) in enumerate(batches()):
        step(inputs, targets, number)
    return single


def free_biases(model: AnswerModel) -> set[str]:
    """Biases before a batch normalisation, which subtracts them again: the loss does not depend on
    them, their gradient is rounding and Adam makes steps of it. The running means follow them."""
    row = list(getattr(model.head, "layers", []))
    return {
        f"head.layers.{number}.bias"
        for number, layer in enumerate(row[:-1])
        if isinstance(layer, nn.Linear) and isinstance(row[number + 1], nn.BatchNorm1d)
    }


def worst_difference(step: LaneStep, lane: int, single: AnswerModel) -> float:
    """Largest relative difference (in norm) of a parameter that the loss depends on."""
    free = free_biases(single)
    return max(
        float((own[lane].reshape(p.shape) - p).detach().norm() / p.detach().norm().clamp_min(1e-3))
        for own, (name, p) in zip(step.model.parameters(), single.named_parameters(), strict=True)
        if name not in free
    )


@pytest.mark.parametrize("name", MODELS)
def test_every_lane_equals_its_single_run(name: str) -> None:
    step = train_lanes(LANES, **MODELS[name])
    for number, lane in enumerate(LANES):
        assert worst_difference(step, number, train_alone(lane, name)) <= 1e-4, lane
    assert step.finite.all()


@pytest.mark.parametrize("name", MODELS)
def test_gradients_equal_those_of_vmap(name: str) -> None:
    lanes = [replace(lane, dropout=0.0, seed=number) for number, lane in enumerate(LANES)]
    models = [build(lane, **MODELS[name]) for lane in lanes]
    inputs, targets = batches()[0]
    step = lane_step(lanes, models)
    losses = step.loss(step.model.train()(inputs), targets)
    losses.sum().backward()

    for module in (module for model in models for module in model.modules()):
        if isinstance(module, nn.BatchNorm1d):  # vmap updates no running statistics in place
            module.track_running_stats = False
            module.running_mean = module.running_var = None
        elif isinstance(module, CosineHead):  # nor does it clamp the scale in place
            module.training = False
    parameters, buffers = torch.func.stack_module_state(models)  # type: ignore[arg-type]

    def logits_sum(parameters: Any, buffers: Any, cotangent: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(models[0], (parameters, buffers), (inputs,))
        return (logits * cotangent).sum()

    logits = step.model(inputs).detach().requires_grad_()
    (cotangent,) = torch.autograd.grad(step.loss(logits, targets).sum(), logits)
    expected = torch.func.vmap(torch.func.grad(logits_sum))(parameters, buffers, cotangent)
    for own, other in zip(step.model.parameters(), expected.values(), strict=True):
        assert own.grad is not None
        assert torch.allclose(own.grad.reshape(other.shape), other, atol=1e-5, rtol=1e-4)


def test_losses_equal_those_of_torch() -> None:
    logits = torch.randn(len(LANES), 9, ANSWERS, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, IGNORED, 3, 6, 5, 2, IGNORED, 0])
    found = LaneCrossEntropy([lane.loss() for lane in LANES])(logits, targets)
    expected = [
        nn.functional.cross_entropy(
            own / lane.temperature,
            targets,
            weight=COUNTS.float().pow(-lane.class_weight_power),
            label_smoothing=lane.label_smoothing,
            ignore_index=IGNORED,
        )
        for lane, own in zip(LANES, logits, strict=True)
    ]
    assert torch.allclose(found, torch.stack(expected), rtol=1e-5)
    ignored = LaneCrossEntropy([lane.loss() for lane in LANES])(logits, torch.full((9,), IGNORED))
    assert ignored.tolist() == [0.0] * len(LANES)


def test_class_weights_need_the_counts() -> None:
    with pytest.raises(ValueError, match="class_weight_power needs the counts of the answers"):
        CrossEntropy(class_weight_power=1.0)


def test_a_diverged_lane_changes_no_bit_of_the_others() -> None:
    model = MODELS["mlp, batch norm"]
    good = train_lanes(LANES, **model)
    bad = train_lanes([LANES[0], replace(LANES[1], lr=1e38, weight_decay=1e3), *LANES[2:]], **model)
    assert good.finite.all()
    assert bad.finite.tolist() == [True, False, True, True, True, True]
    others = torch.tensor([0, 2, 3, 4, 5])
    for one, two in zip(good.model.parameters(), bad.model.parameters(), strict=True):
        assert torch.equal(one[others], two[others])


@pytest.mark.parametrize("name", MODELS)
def test_lanes_that_go_on_are_not_disturbed_by_those_that_stop(name: str) -> None:
    step = lane_step(LANES, [build(lane, **MODELS[name]) for lane in LANES])
    for number, (inputs, targets) in enumerate(batches()):
        if number == 20:
            step.keep(torch.tensor([3, 1]))
        step(inputs, targets, number)
    assert step.finite.shape == (2,)
    for place, number in enumerate((3, 1)):
        assert worst_difference(step, place, train_alone(LANES[number], name)) <= 1e-4


def test_lanes_in_bf16_follow_the_single_run() -> None:
    step = lane_step(LANES, [build(lane, **MODELS["mlp, batch norm"]) for lane in LANES])
    step.precision = "bf16"
    single = build(LANES[3], **MODELS["mlp, batch norm"])
    alone = TrainingStep(
        single,
        LANES[3].loss(),
        optimizers.AdamW(single, lr=LANES[3].lr, weight_decay=LANES[3].weight_decay),
        schedule=schedules.cosine(STEPS, warmup_steps=5),
        seed=LANES[3].seed,
        precision="bf16",
    )
    for number, (inputs, targets) in enumerate(batches()[:5]):
        losses = step(inputs, targets, number)
        assert losses[3].item() == pytest.approx(alone(inputs, targets, number).item(), rel=0.02)


def test_evaluation_draws_nothing_and_is_that_of_the_single_model() -> None:
    model = MODELS["mlp, batch norm"]
    step = train_lanes(LANES, **model)
    inputs, _ = batches()[0]
    with torch.no_grad():
        logits = step.model.eval()(inputs)
        again = step.model(inputs)
    assert torch.equal(logits, again)
    single = copy.deepcopy(train_alone(LANES[3], "mlp, batch norm")).eval()
    # running means lag behind the biases that batch norm takes away, see free_biases
    assert torch.allclose(logits[3], single(inputs), atol=1e-2)


def test_models_that_do_not_fit_are_refused() -> None:
    narrow = build(Lane(), head="mlp", hidden=[4])
    wide = build(Lane(), head="mlp", hidden=[5])
    deep = build(Lane(), head="mlp", hidden=[4, 4])
    for other in (wide, deep, build(Lane(), head="linear")):
        with pytest.raises(ValueError, match="lanes differ in shape"):
            LaneModel([narrow, other], [0, 0])
    cosine = [build(Lane(), head="cosine", hidden=[]) for _ in range(2)]
    cosine[1].head.answers.add_(1)  # type: ignore[operator]
    with pytest.raises(ValueError, match="lanes differ in 'answers', which all of them share"):
        LaneModel(cosine, [0, 0])
    assert is_alike(narrow)
    assert not is_alike(AnswerModel(Concat(SIZES), OwnHead(11, ANSWERS)))
