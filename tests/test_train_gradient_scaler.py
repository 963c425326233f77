"""Loss scaling: the numbers of `torch.amp.GradScaler`, over tensors."""

from __future__ import annotations

import pytest
import torch

from train.components import families
from train.engine import optimizers, schedules
from train.engine.model import AnswerModel
from train.engine.scaler import GradientScaler
from train.engine.step import TrainingStep
from train.fusion.concat import Concat
from train.heads.linear import LinearHead
from train.inputs.specification import Input
from train.losses.cross_entropy import CrossEntropy


def model() -> AnswerModel:
    torch.manual_seed(0)
    return AnswerModel(Concat({"x": 4}), LinearHead(4, 3))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_numbers_of_torch_with_overflows_left_out(name: str) -> None:
    ours, theirs = model(), model()
    optimizer = families.OPTIMIZER.find(name)(ours, lr=0.1, weight_decay=0.0)
    kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    options = {"momentum": 0.9} if name == "sgd" else {}
    reference = kind(theirs.parameters(), lr=0.1, weight_decay=0.0, fused=True, **options)
    scaler, other = GradientScaler(torch.device("cpu")), torch.amp.GradScaler("cpu")
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    for step in range(6):
        factor = float("inf") if step in (1, 3) else 1.0
        for parameter in ours.parameters():
            parameter.grad = None
        (ours({"x": Input(x)}).square().mean() * factor * scaler.scale).backward()
        found = scaler.unscale([p.grad for p in ours.parameters() if p.grad is not None])
        optimizer.step(0.1, found)
        scaler.update(found)
        reference.zero_grad()
        other.scale(theirs({"x": Input(x)}).square().mean() * factor).backward()
        other.step(reference)
        other.update()
        assert found.item() == (step in (1, 3))
        assert scaler.scale.item() == other.get_scale()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(a, b, rtol=1e-6, atol=0), step
    assert scaler.scale.item() == 2.0**14


def test_a_training_in_fp16_learns_and_goes_on_from_its_state() -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    truth = torch.tensor([0, 1, 2, 0, 1, 2])

    def step_of(net: AnswerModel) -> TrainingStep:
        return TrainingStep(
            net,
            CrossEntropy(),
            optimizers.AdamW(net, lr=0.1),
            schedule=schedules.constant(40),
            seed=0,
            precision="fp16",
        )

    whole = step_of(model())
    losses = [whole({"x": Input(x)}, truth, number).item() for number in range(20)]
    assert losses[-1] < 0.7 * losses[0]
    first, second = step_of(model()), step_of(model())
    for number in range(9):
        first({"x": Input(x)}, truth, number)
    second.model.load_state_dict(first.model.state_dict())
    second.load({name: tensor.clone() for name, tensor in first.state().items()})
    assert [second({"x": Input(x)}, truth, number).item() for number in range(9, 20)] == losses[9:]
    assert second.state()["scaler.growth"].item() == 20
