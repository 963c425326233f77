"""Inputs given as distinct rows: the same numbers as with a row for each example, in fewer
products."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import fewer
from train.components import families
from train.engine import schedules
from train.engine.model import AnswerModel
from train.engine.optimizers import AdamW
from train.engine.sharing import Sharing, find_sharing
from train.engine.step import TrainingStep, forward
from train.fusion import FUSIONS
from train.fusion.concat import Concat
from train.heads.cosine import CosineHead
from train.heads.linear import LinearHead
from train.heads.mlp import MlpHead
from train.heads.sequence import SequenceHead
from train.inputs import batch
from train.inputs import single_pass as passes
from train.inputs.batch import batches_of, gather
from train.inputs.normaliser import Normaliser
from train.inputs.order import By, SampleOrder
from train.inputs.resident import ItemRows, ResidentTable
from train.inputs.shared_rows import SharedRows, share, spread, watching
from train.inputs.single_pass import HeldProducts, single_pass
from train.lanes.loss import LaneCrossEntropy
from train.lanes.optimizer import LaneAdamW
from train.lanes.stack import LaneModel
from train.lanes.step import LaneStep
from train.losses.cross_entropy import CrossEntropy

WIDTHS = {"image": 12, "text": 10}
ROWS = {"image": 9, "text": 6}
EXAMPLES, ANSWERS = 200, 7
OPTIONS: dict[str, dict[str, Any]] = {
    "product": {"dim": 8},
    "sum": {"dim": 8},
    "gmu": {"dim": 8},
    "low_rank": {"dim": 8, "chunks": 2, "rank": 2, "out": 6},
}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """These rows are narrow: sharing them is worth it all the same."""
    monkeypatch.setattr(batch, "WORTH", 1)


class Rows:
    """Random rows in memory, of which each example has one of each modality."""

    def __init__(
        self, rows: Mapping[str, int] = ROWS, compute_type: torch.dtype = torch.float32
    ) -> None:
        draw = torch.Generator().manual_seed(0)
        self.tables = {
            name: ResidentTable(
                torch.randn(rows[name], width, generator=draw), np.arange(rows[name]),
                Normaliser("none"), compute_type=compute_type,
            )
            for name, width in WIDTHS.items()
        }  # fmt: skip
        items = {
            name: ItemRows(torch.randint(count, (EXAMPLES,), generator=draw))
            for name, count in rows.items()
        }
        self.truth = torch.randint(ANSWERS, (EXAMPLES,), generator=draw)
        joined = SimpleNamespace(image=items["image"].rows.numpy())
        self.part: Any = SimpleNamespace(items=items, joined=joined)

    def order(self, by: By = "full", size: int = 64) -> SampleOrder:
        return SampleOrder(
            self.part, self.tables, torch.arange(EXAMPLES), batch_size=size, data_seed=0, by=by
        )

    def sharing(self, model: AnswerModel, by: By = "full", size: int = 64) -> Sharing:
        return find_sharing(model, self.part, self.tables, self.order(by, size), "fp32")


def head_of(name: str, width: int, **options: Any) -> nn.Module:
    torch.manual_seed(1)
    if name == "linear":
        return LinearHead(width, ANSWERS, **options)
    if name == "sequence":
        return SequenceHead(width, ANSWERS, layers=[8, "tanh", "dropout=0.3"])
    if name == "cosine":
        return CosineHead(width, ANSWERS, torch.randn(ANSWERS, 5), hidden=[8], **options)
    return MlpHead(width, ANSWERS, hidden=[8], dropout=0.2, batch_norm=True, **options)


def model_of(head: str, **options: Any) -> AnswerModel:
    torch.manual_seed(0)
    fusion = Concat(WIDTHS)
    return AnswerModel(fusion, head_of(head, fusion.out_features, **options))


def step_of(model: AnswerModel) -> TrainingStep:
    optimizer = AdamW(model, lr=1e-3)
    return TrainingStep(model, CrossEntropy(), optimizer, schedule=schedules.constant(9), seed=0)


@pytest.mark.parametrize("transform", ["off", 6])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_of_shared_rows_has_the_logits_and_gradients_of_plain_rows(
    fusion: str, transform: Any
) -> None:
    rows = Rows(compute_type=torch.float64)  # a signed root makes much of rounding
    torch.manual_seed(0)
    join = families.FUSION.find(fusion)(WIDTHS, transform=transform, **OPTIONS.get(fusion, {}))
    model = AnswerModel(join, head_of("mlp", join.out_features)).double()
    found = []
    for shared in ([], ["image"], ["image", "text"]):
        model.zero_grad()
        torch.manual_seed(3)  # of dropout
        with watching() as multiplied:
            inputs = gather(rows.part, rows.tables, torch.arange(64), shared)
            logits = forward(model, inputs, "fp32")
        assert bool(multiplied) == bool(shared)
        assert all(distinct <= 9 for distinct in multiplied)
        logits.square().sum().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append([logits.detach(), *gradients])
    plain, *others = found
    for own in others:
        assert len(own) == len(plain)
        # a bias before batch normalisation has no gradient but rounding
        size = max(float(one.abs().max()) for one in plain)
        for one, other in zip(plain, own, strict=True):
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-5 * size)


@pytest.mark.parametrize(
    ("head", "by"),
    [("linear", "full"), ("mlp", "by_image"), ("cosine", "full"), ("sequence", "by_image")],
)
def test_losses_of_two_hundred_steps_are_equal_within_rounding(head: str, by: By) -> None:
    rows, losses = Rows(), []
    order = rows.order(by)
    sharing = rows.sharing(model_of(head), by)
    assert sharing.names == {"image", "text"}
    for shared in ((), sharing.names):
        step = step_of(model_of(head))
        made = batches_of(rows.part, rows.truth, rows.tables, shared)
        losses.append(
            torch.stack([step(*made(order.batch(*divmod(n, order.steps))), n) for n in range(200)])
        )
    plain, own = losses
    assert float(((plain - own).abs() / plain).max()) <= 1e-5


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("linear", {"dropout_input": 0.2}),
        ("mlp", {"dropout_input": 0.2}),
        ("mlp", {"batch_norm_input": True}),
    ],
)
def test_what_comes_before_the_first_product_switches_sharing_off_and_is_told(
    head: str, options: dict[str, Any]
) -> None:
    model = model_of(head, **options)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drawn = torch.get_rng_state()
    found = Rows().sharing(model)
    assert found.names == set()
    assert list(found.notes) == [
        "image: 16% of a batch's rows are distinct, computed for every example all the same, as "
        "dropout or normalisation comes first",
        "text: 11% of a batch's rows are distinct, computed for every example all the same, as "
        "dropout or normalisation comes first",
    ]
    assert torch.equal(drawn, torch.get_rng_state()), "a trial draws nothing"
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), "a trial counts in no statistic"


def test_rows_that_are_nearly_all_distinct_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    many = Rows({"image": 9, "text": 10_000})
    found = many.sharing(model_of("linear"))
    assert found.names == {"image"}
    assert list(found.notes) == ["image: 16% of a batch's rows are distinct, computed once each"]
    monkeypatch.setattr(batch, "WORTH", 12)
    assert many.sharing(model_of("linear")).names == set(), "narrow rows"


class OwnHead(nn.Module):
    """A user's own, which changes what it is given in place before it multiplies."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.output = nn.Linear(width, ANSWERS)

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        fused.mul_(2)
        logits: torch.Tensor = self.output(fused)
        return logits


def test_a_head_that_changes_its_input_in_place_computes_what_it_says() -> None:
    rows = Rows()
    model = AnswerModel(Concat(WIDTHS), OwnHead(sum(WIDTHS.values())))
    plain, own = (
        forward(model, gather(rows.part, rows.tables, torch.arange(32), shared), "fp32")
        for shared in ([], ["image", "text"])
    )
    assert torch.allclose(plain, own, rtol=1e-5, atol=1e-5)
    assert rows.sharing(model).names == set(), "it multiplies no distinct rows"


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_lanes_of_shared_rows_step_as_lanes_of_plain_rows(head: str) -> None:
    rows, found = Rows(), []
    for shared in ([], ["image", "text"]):
        models = [model_of(head) for _ in range(3)]
        lanes = LaneModel(models, [0, 1, 2])
        rates = torch.tensor([1e-2, 1e-3, 1e-4], dtype=torch.float64)
        optimizer = LaneAdamW(
            lanes.parameters(), lanes.decays, lr=rates, weight_decay=torch.zeros_like(rates)
        )
        loss = LaneCrossEntropy([CrossEntropy()] * 3)
        step = LaneStep(lanes, loss, optimizer, schedule=schedules.constant(9))
        made, order = batches_of(rows.part, rows.truth, rows.tables, shared), rows.order()
        with watching() as multiplied:
            losses = [step(*made(order.batch(*divmod(n, order.steps))), n) for n in range(20)]
        assert len(multiplied) == (40 if shared else 0), "both inputs, for all lanes at once"
        found.append(torch.stack(losses))
    assert torch.allclose(*found, rtol=1e-5)


def test_gradients_of_spread_rows_are_sums_in_the_order_of_the_examples() -> None:
    index = torch.tensor([3, 0, 3, 3, 1])
    for shape in [(5,), (5, 4), (5, 2, 3)]:
        own = torch.randn(shape, requires_grad=True)
        other = own.detach().clone().requires_grad_()
        weights = torch.randn(spread(own, index).shape)
        (spread(own, index) * weights).sum().backward()
        (other.index_select(0, index) * weights).sum().backward()
        assert torch.equal(own.grad, other.grad)


def test_shared_rows_stay_shared_through_layers_that_change_each_row_alone() -> None:
    rows, index = torch.randn(3, 4), torch.tensor([0, 2, 2, 1, 0])
    layers = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
    found = layers(share(rows, index))
    assert isinstance(found, SharedRows)
    assert (found.shape, found.ndim, len(found), found.dtype) == ((5, 2), 2, 5, torch.float32)
    assert len(found.columns[0].rows) == 3
    assert torch.allclose(found + 0, layers(rows)[index])


@pytest.mark.parametrize("transform", ["off", 6])
@pytest.mark.parametrize("lanes", [False, True])
def test_a_pass_multiplies_each_distinct_row_once_and_says_what_plain_rows_say(
    lanes: bool, transform: Any
) -> None:
    rows = Rows({"image": 30, "text": 6})
    fusion = Concat(WIDTHS, transform=transform)
    torch.manual_seed(0)
    single = [AnswerModel(fusion, head_of("mlp", fusion.out_features)) for _ in range(2)]
    model = (LaneModel(single, [0, 1]) if lanes else single[0]).eval()
    everything = torch.arange(EXAMPLES)
    said: dict[int, torch.Tensor] = {}
    with torch.no_grad(), watching() as multiplied:
        for span, inputs in single_pass(rows.part, rows.tables, 50, everything):
            logits = forward(model, inputs, "fp32")
            said |= dict(zip(span.tolist(), logits.unbind(-2), strict=True))
        plain = forward(model, gather(rows.part, rows.tables, everything), "fp32")
    assert sorted(said) == everything.tolist()
    together = torch.stack([said[place] for place in range(EXAMPLES)], dim=-2)
    assert torch.allclose(together, plain, rtol=1e-5, atol=1e-5)
    images = sum(multiplied) - (0 if transform == "off" or lanes else sum(multiplied) // 2)
    assert 30 <= images <= 30 + 3, "an image whose questions lie in two batches is there twice"


def test_kept_products_are_those_of_parameters_and_of_what_they_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = Rows().tables["text"]
    layer = nn.Linear(10, 4)
    numbers = torch.tensor([5, 1, 1, 0])
    expected = layer(table.gather(ItemRows(numbers)))
    for budget, kept in [(6 * 4 * 4, True), (6 * 4 * 4 - 1, False)]:
        monkeypatch.setattr(passes, "HELD_BYTES", budget)
        held = HeldProducts(table, torch.tensor([0, 1, 5, 5, 2, 3, 4]))
        assert held.with_weight(layer.weight, layer.bias) is None, "with gradients"
        with torch.no_grad():
            made = held.with_weight(layer.weight, layer.bias)
            assert (made is not None) == kept
            assert held.with_weight(layer.weight * 1, None) is None, "made anew each time"
            said = layer(held.of(numbers))
        assert torch.allclose(said + 0, expected, rtol=1e-5)
        assert torch.equal(held.of(numbers) + 0, table.gather(ItemRows(numbers)))


def test_the_benchmark_runs_on_small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    small = fewer.Counts(40, 12, 200, 5, 130, 140)
    for name in ("VQA2", "VQA2_VALIDATION", "EASY_VQA", "NARROW"):
        monkeypatch.setattr(fewer, name, small)
    monkeypatch.setattr(fewer, "BATCH", 50)
    given: Any = {"precision": "fp32", "rounds": 1, "steps": 1}
    pairs = fewer.Pairs(small)
    figures = fewer.on_vqa2(["linear"], pairs, **given) | fewer.on_easy_vqa(**given)
    figures |= fewer.against_journal(["linear"], pairs, **given) | fewer.narrower(**given)
    figures |= fewer.validation(pairs, **given) | fewer.equal_losses(steps=2)
    assert figures["linear_equal_losses"] <= 1e-5
    assert {"linear_vqa2_by_image_vs_full", "mlp_easy_vqa_vs_unfactorised", "pca256_vs_full",
            "linear_journal_loop_ratio", "validation_share"} <= figures.keys()  # fmt: skip
    assert min(figures.values()) >= 0
