"""Losses, optimisers, schedules, seeds and the step engine."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from train import losses
from train.components import families
from train.components.lookup import takes
from train.config.seeds import batch_bounds, derive_seed, epoch_order
from train.engine import optimizers, schedules
from train.engine.model import AnswerModel
from train.engine.step import TrainingStep, forward
from train.errors import TrainError
from train.fusion.concat import Concat
from train.heads.mlp import MlpHead
from train.inputs.specification import Input
from train.layers.dropout import Dropout, kept
from train.losses import IGNORED
from train.losses.cross_entropy import CrossEntropy

ROOT = Path(__file__).parent.parent


def small_model(seed: int = 0, **options: Any) -> AnswerModel:
    torch.manual_seed(seed)
    return AnswerModel(Concat({"image": 3}), MlpHead(3, 4, hidden=[8], **options))


def small_batch() -> tuple[dict[str, Input], torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"image": Input(torch.randn(6, 3, generator=generator))}, torch.tensor(
        [0, 1, 2, 3, 0, 1]
    )


def step_of(model: AnswerModel, *, lr: float = 0.01, steps: int = 10, **options: Any) -> Any:
    return TrainingStep(
        model,
        CrossEntropy(),
        optimizers.AdamW(model, lr=lr),
        schedule=schedules.constant(steps),
        seed=0,
        **options,
    )


@pytest.mark.parametrize("name", losses.LOSSES)
def test_loss_falls_towards_the_truth(name: str) -> None:
    kind, targets = families.LOSS.find(name), torch.tensor([0, 1])
    loss = kind(None, torch.tensor([0, 1])) if takes(kind, "answer_types") else kind()
    if hasattr(loss, "targets"):
        targets = torch.eye(2)
    assert loss(5 * torch.eye(2), targets) < loss(torch.zeros(2, 2), targets)


def test_cross_entropy_by_hand_and_ignored_targets() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [9.0, -9.0]])
    assert CrossEntropy()(logits, torch.tensor([1, IGNORED])).item() == pytest.approx(
        math.log(4 / 3)
    )
    assert CrossEntropy()(logits, torch.full((2,), IGNORED)).item() == 0


def test_class_weights_in_the_forms_of_the_journals_are_those_of_power_one() -> None:
    """A mean by weight does not change with the weights' scale: inverse counts that add up to 1,
    and inverse shares that do, are the same loss."""
    counts, targets = torch.tensor([5, 1, 0, 3]), torch.tensor([0, 1, 3, 3, 0])
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    inverse = 1 / counts.clamp_min(1)
    for weights in (inverse / inverse.sum(), counts.sum() * inverse):
        expected = torch.nn.functional.cross_entropy(logits, targets, weight=weights.float())
        assert torch.allclose(
            CrossEntropy(counts, class_weight_power=1.0)(logits, targets), expected
        )


def test_label_smoothing_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)]])  # probabilities 1/4 and 3/4
    value = CrossEntropy(label_smoothing=0.2)(logits, torch.tensor([1])).item()
    assert value == pytest.approx(-0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4))


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_optimiser_lowers_the_loss(name: str) -> None:
    model, (inputs, targets) = small_model(), small_batch()
    optimizer = families.OPTIMIZER.find(name)(model, lr=0.05)
    schedule = schedules.constant(40)
    step = TrainingStep(model, CrossEntropy(), optimizer, schedule=schedule, seed=0)
    values = [step(inputs, targets, number).item() for number in range(40)]
    assert values[-1] < 0.7 * values[0]


def test_matrices_decay_and_nothing_else() -> None:
    model = small_model(batch_norm=True)
    matrices, others = optimizers.AdamW(model, lr=1.0, weight_decay=0.1).groups
    assert (matrices[1], others[1]) == (0.1, 0.0)
    assert [p.ndim for p in matrices[0]] == [2, 2]
    assert {p.ndim for p in others[0]} == {1}


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_rmsprop_gives_the_numbers_of_torch_and_leaves_an_overflow_out(weight_decay: float) -> None:
    ours, reference = small_model(), small_model()
    for model in (ours, reference):  # torch's weight decay has no groups of its own here
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.ndim >= 2)
    optimizer = optimizers.RmsProp(ours, lr=1e-2, weight_decay=weight_decay)
    theirs = torch.optim.RMSprop(
        [p for p in reference.parameters() if p.requires_grad], lr=1e-2, weight_decay=weight_decay
    )
    inputs, targets = small_batch()
    for number in range(6):
        for model, own in ((ours, optimizer.clear_gradients), (reference, theirs.zero_grad)):
            own()
            CrossEntropy()(model(inputs), targets).backward()
        optimizer.step(torch.tensor(1e-2))
        theirs.step()
        for a, b in zip(ours.parameters(), reference.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-6), number
    before = [p.detach().clone() for p in ours.parameters()]
    state = {name: tensor.clone() for name, tensor in optimizer.state.items()}
    for parameter in ours.parameters():
        if parameter.grad is not None:
            parameter.grad.fill_(torch.inf)
    optimizer.step(torch.tensor(1e-2), torch.ones(()))
    assert all(torch.equal(p, kept) for p, kept in zip(ours.parameters(), before, strict=True))
    assert all(torch.equal(optimizer.state[name], kept) for name, kept in state.items())


@pytest.mark.parametrize(
    ("name", "theirs", "options"),
    [
        ("adamw", torch.optim.AdamW, {"weight_decay": 0.3}),
        ("adam", torch.optim.Adam, {"weight_decay": 0.3}),
        ("sgd", torch.optim.SGD, {"weight_decay": 0.3, "momentum": 0.9}),
        ("sgd", torch.optim.SGD, {"momentum": 0.5, "nesterov": True}),
        ("sgd", torch.optim.SGD, {"momentum": 0.0}),
    ],
)
def test_optimisers_give_the_numbers_of_torch_to_the_bit(
    name: str, theirs: Any, options: dict[str, Any]
) -> None:
    ours, reference = small_model(), small_model()
    decaying = [p for p in reference.parameters() if p.ndim >= 2]
    others = [p for p in reference.parameters() if p.ndim < 2]
    groups = [{"params": decaying}, {"params": others, "weight_decay": 0.0}]
    step = TrainingStep(
        ours,
        CrossEntropy(),
        families.OPTIMIZER.find(name)(ours, lr=0.1, **options),
        schedule=schedules.linear(8),
        seed=0,
    )
    optimizer = theirs(groups, lr=0.1, fused=True, **options)
    inputs, targets = small_batch()
    for number in range(6):
        step(inputs, targets, number)
        optimizer.zero_grad()
        CrossEntropy()(reference(inputs), targets).backward()
        for group in optimizer.param_groups:
            group["lr"] = float(torch.tensor(0.1 * schedules.linear(8)(number)))  # in float32
        optimizer.step()
        for a, b in zip(ours.parameters(), reference.parameters(), strict=True):
            assert torch.equal(a, b), number


# what some are given beside the steps, and the options that they require
SHAPES: dict[str, tuple[tuple[int, ...], dict[str, float]]] = {
    "step": ((6,), {"every": 1.0, "factor": 0.5}),
    "exponential": ((), {"factor": 0.9}),
}


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_schedule_warms_up_then_follows_its_shape(name: str) -> None:
    given, options = SHAPES.get(name, ((), {}))
    factor = families.SCHEDULE.find(name)(12, *given, warmup_steps=4, **options)
    assert [factor(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert factor(4) == 1.0
    halfway = {
        "constant": 1.0,
        "linear": 0.5,
        "cosine": 0.5,
        "step": 0.25,
        "exponential": 0.9**4,
    }
    assert factor(8) == pytest.approx(halfway[name])
    with pytest.raises(ValueError, match="warmup_steps is 13; expected at most 12"):
        families.SCHEDULE.find(name)(12, *given, warmup_steps=13, **options)


@pytest.mark.parametrize(
    ("name", "given", "options", "theirs"),
    [
        ("step", (6,), {"every": 2, "factor": 0.5}, {"step_size": 8, "gamma": 0.5}),
        ("exponential", (), {"factor": 0.9}, {"gamma": 0.9}),
    ],
)
def test_schedules_that_fall_by_a_factor_are_those_of_torch(
    name: str, given: tuple[int, ...], options: dict[str, Any], theirs: dict[str, Any]
) -> None:
    kinds = {"step": "StepLR", "exponential": "ExponentialLR"}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = getattr(torch.optim.lr_scheduler, kinds[name])(optimizer, **theirs)
    ours = families.SCHEDULE.find(name)(24, *given, **options)
    for step in range(24):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"]), step
        optimizer.step()
        reference.step()


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_schedule_ends_at_final(name: str) -> None:
    assert families.SCHEDULE.find(name)(10, final=0.1)(10) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "lookup", [families.LOSS.find, families.OPTIMIZER.find, families.SCHEDULE.find]
)
def test_unknown_names_list_the_known_ones(lookup: Any) -> None:
    with pytest.raises(TrainError, match=r"unknown .* 'nope'; known: "):
        lookup("nope")


def test_learning_rate_follows_the_step() -> None:
    model, (inputs, targets) = small_model(), small_batch()
    step = TrainingStep(
        model,
        CrossEntropy(),
        optimizers.Sgd(model, lr=0.5),
        schedule=schedules.linear(10),
        seed=0,
    )
    before = [p.detach().clone() for p in model.parameters()]
    step(inputs, targets, 4)
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.allclose(old - new, 0.3 * new.grad, atol=1e-7)
    assert step.lr(4) == pytest.approx(0.3)


def test_dropout_of_a_step_does_not_depend_on_earlier_steps() -> None:
    inputs, targets = small_batch()

    def loss_at(number: int, before: int, **seeds: int) -> float:
        step = step_of(small_model(dropout=0.5))
        step.seed = seeds.get("seed", 0)
        torch.rand(before)
        return float(step(inputs, targets, number))

    assert loss_at(7, before=0) == loss_at(7, before=123)
    assert loss_at(7, before=0) != loss_at(8, before=0)
    assert loss_at(7, before=0) != loss_at(7, before=0, seed=1)


def test_same_seed_gives_the_same_weights() -> None:
    inputs, targets = small_batch()
    trained = []
    for _ in range(2):
        model = small_model(dropout=0.5)
        step = step_of(model)
        for number in range(5):
            step(inputs, targets, number)
        trained.append(model.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_bf16_computes_in_bfloat16_and_keeps_float32_weights() -> None:
    model, (inputs, targets) = small_model(), small_batch()
    step_of(model, precision="bf16")(inputs, targets, 0)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    exact, rough = forward(model, inputs, "fp32"), forward(model, inputs, "bf16")
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    assert torch.allclose(exact, rough, atol=0.05)


def test_seeds_separate_their_parts() -> None:
    assert derive_seed(1, "step", 2) == derive_seed(1, "step", 2)
    drawn = {derive_seed(*parts) for parts in [(1, 23), (12, 3), ("123",), (1, "step", 23)]}
    assert len(drawn) == 4
    assert all(0 <= seed < 2**63 for seed in drawn)


def test_order_follows_data_seed_and_epoch() -> None:
    first = epoch_order(50, data_seed=0, epoch=3)
    assert sorted(first.tolist()) == list(range(50))
    assert torch.equal(first, epoch_order(50, data_seed=0, epoch=3))
    assert not torch.equal(first, epoch_order(50, data_seed=0, epoch=4))
    assert not torch.equal(first, epoch_order(50, data_seed=1, epoch=3))


@pytest.mark.parametrize(
    ("n", "size", "expected"),
    [
        (0, 4, []),
        (1, 4, [(0, 1)]),
        (4, 4, [(0, 4)]),
        (5, 4, [(0, 5)]),  # the one left over joins the batch before
        (6, 4, [(0, 4), (4, 6)]),
        (9, 4, [(0, 4), (4, 9)]),
        (3, 1, [(0, 1), (1, 2), (2, 3)]),  # as asked for
    ],
)
def test_batches_cover_all_and_never_leave_one_alone(
    n: int, size: int, expected: list[tuple[int, int]]
) -> None:
    assert batch_bounds(n, size) == expected


def test_batch_norm_survives_every_tail() -> None:
    for n in range(2, 12):
        step = step_of(small_model(batch_norm=True, batch_norm_input=True))
        for number, (first, last) in enumerate(batch_bounds(n, 4)):
            rows = torch.randn(last - first, 3)
            targets = torch.zeros(len(rows), dtype=torch.int64)
            assert step({"image": Input(rows)}, targets, number) > 0


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_imports_bring_what_they_need_alone() -> None:
    """The package nothing heavy, the step engine torch alone, the trainer no encoder's library."""
    code = (
        "import sys\n"
        "def told(*names): print([name for name in names if name in sys.modules])\n"
        "import train\n"
        "told('torch', 'numpy', 'pydantic', 'vqa_cache', 'rich')\n"
        "import train.engine.step, train.heads.mlp, train.heads.cosine, train.fusion.concat\n"
        "import train.losses.cross_entropy, train.metrics.classification, train.lanes.step\n"
        "told('pydantic', 'pandas', 'optuna', 'h5py', 'zarr', 'train.config.schema')\n"
        "import train.trainer\n"
        "told('transformers', 'timm', 'open_clip', 'torchvision', 'PIL', 'matplotlib')\n"
    )
    assert run_python(code).splitlines() == ["[]"] * 3


# ---------------------------------------------------------------- dropout


@pytest.mark.parametrize(("share", "zeros"), [(0.5, 0.5), (0.2, 51 / 256), (0.001, 1 / 256)])
def test_dropout_zeroes_its_share_and_keeps_the_expectation(share: float, zeros: float) -> None:
    torch.manual_seed(0)
    factors = Dropout(share)(torch.ones(1003, 1001))
    n = factors.numel()
    error = 4 * (zeros * (1 - zeros) / n) ** 0.5
    assert (factors == 0).double().mean().item() == pytest.approx(zeros, abs=error)
    assert factors.unique().tolist() == pytest.approx([0.0, 1 / (1 - zeros)])
    by_column = (factors == 0).double().mean(dim=0)
    assert by_column.std().item() == pytest.approx((zeros * (1 - zeros) / 1003) ** 0.5, rel=0.15)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.5])
def test_dropout_in_bf16_scales_by_the_exact_inverse_of_what_it_keeps(share: float) -> None:
    """The scale is not rounded to bfloat16; only the products are, up as often as down."""
    torch.manual_seed(0)
    x = torch.rand(1024, 1024).bfloat16() + 0.5
    mask = kept(x, share)
    torch.manual_seed(0)
    assert torch.equal(x, torch.rand(1024, 1024).bfloat16() + 0.5)
    y = Dropout(share)(x)
    assert y.dtype == torch.bfloat16
    expected = x.double() * mask.double() * 256 / (256 - round(share * 256))
    assert (y.double() - expected).abs().max() <= 2**-8 * expected.abs().max()
    assert y.double().sum() / expected.sum() == pytest.approx(1, abs=2e-4)


def test_dropout_is_off_while_evaluating_and_passes_gradients_where_it_keeps() -> None:
    x = torch.ones(64, 32, requires_grad=True)
    layer = Dropout(0.4)
    assert layer.eval()(x) is x
    y = layer.train()(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
