"""Every component of the dictionaries in lanes: its lanes train as its single runs do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from train.attention import ATTENTIONS
from train.components import families
from train.components.lookup import options_of, takes
from train.engine import optimizers, schedules
from train.engine.step import TrainingStep
from train.fusion import FUSIONS
from train.heads import HEADS
from train.inputs.specification import Input, Tokens, Vector, Words
from train.lanes.each import EachLane
from train.lanes.loss import LaneCrossEntropy
from train.lanes.optimizer import LaneAdamW
from train.lanes.stack import LaneModel, is_alike
from train.lanes.step import LaneStep
from train.losses.cross_entropy import CrossEntropy
from train.questions import QUESTIONS

ANSWERS, BATCH, STEPS, N, T, D, SIZE = 4, 8, 50, 3, 4, 4, 9
SIZES = {"image": 5, "text": 6}
GIVEN = {"word_lstm": Words(SIZE, T), "token_lstm": Tokens(D, T), "attention_pool": Tokens(D, T)}
OPTIONS: dict[str, dict[str, Any]] = {
    "word_lstm": {"dim": 3, "hidden": 4},
    "token_lstm": {"hidden": 3, "cell": "gru", "direction": "both"},
    "attention_pool": {"hidden": 3},
    "stacked": {"hidden": 4, "hops": 1},
    "bottom_up": {"hidden": 4},
    "mcan": {"layers": 1, "dim": 4, "heads": 2, "out": 4},
    "bilinear": {"glimpses": 1, "dim": 4},
    "multi_query": {"queries": 2, "dim": 4},
    # the signed root's slope at 0 makes a difference of any rounding
    "low_rank": {"dim": 4, "chunks": 2, "rank": 2, "out": 5, "normalised": False},
    "gmu": {"transform": 4, "form": "b"},
    "product": {"dim": 4},
    "sum": {"dim": 4},
    "mlp": {"hidden": [5]},
    "cosine": {"hidden": [5]},
    "type_gate": {"hidden": [5]},
    "sequence": {"layers": [6, "tanh", "batch_norm", "maxout=2"]},
}
ALIKE = {"concat", "product", "sum", "gmu", "linear", "mlp", "cosine", "sequence",
         "type_gate"}  # fmt: skip
CASES = [(family, name) for family, names in (
    ("question", QUESTIONS), ("attention", ATTENTIONS), ("fusion", FUSIONS), ("head", HEADS)
) for name in names]  # fmt: skip


@dataclass(frozen=True)
class Lane:
    lr: float = 1e-2
    dropout: float = 0.0
    seed: int = 0


LANES = [Lane(), Lane(lr=3e-3, dropout=0.3, seed=1)]


def make(family: str, name: str, lane: Lane, *given: Any) -> nn.Module:
    factory = getattr(families, family.upper()).find(name)
    options = dict(OPTIONS.get(name, {}))
    for option in getattr(factory, "lane_options", ()):
        assert option in options_of(factory), "what may differ is an option"
        options[option] = lane.dropout
    module: nn.Module = factory(*given, **options)
    return module


class Whole(nn.Module):
    """Question branch, attention, fusion and head, as far as there are any."""

    lanes_alike = True

    def __init__(self, fusion: nn.Module, head: nn.Module, **branches: nn.Module) -> None:
        super().__init__()
        self.question, self.attention = branches.get("question"), branches.get("attention")
        self.fusion, self.head = fusion, head

    def forward(self, inputs: Mapping[str, Input]) -> torch.Tensor:
        vectors = {name: one.values for name, one in inputs.items()}
        if self.question is not None:
            encoded = self.question(inputs["text"])
            vectors["text"] = encoded.vector
            if self.attention is not None:
                vectors["image"] = self.attention(inputs["image"], encoded)
        logits: torch.Tensor = self.head(self.fusion(vectors))
        return logits


class Given(Input):
    """An input that says its device, as a tensor does."""

    @property
    def device(self) -> torch.device:
        return self.values.device


def build(family: str, name: str, lane: Lane) -> Whole:
    """A model around one component."""
    torch.manual_seed(lane.seed)
    sizes = dict(SIZES)
    branches: dict[str, nn.Module] = {}
    if family in ("question", "attention"):
        asked = name if family == "question" else "word_lstm"
        branches["question"] = branch = make("question", asked, lane, GIVEN[asked])
        sizes["text"] = branch.gives.d
        if family == "attention":
            image = Tokens(D, N)
            attention = make("attention", name, lane, image, branch.gives, branch.states)
            branches["attention"] = attention
            sizes["image"] = attention.gives.d
    fusion = make("fusion", name if family == "fusion" else "concat", lane, sizes)
    head = name if family == "head" else "linear"
    given: list[Any] = [fusion.out_features, ANSWERS]
    if takes(families.HEAD.find(head), "answer_vectors"):
        given.append(torch.randn(ANSWERS, 4, generator=torch.Generator().manual_seed(5)))
    if takes(families.HEAD.find(head), "answer_types"):
        given.append(torch.arange(ANSWERS) % 3)
    return Whole(fusion, make("head", head, lane, *given), **branches)


def batches(family: str, name: str) -> list[tuple[Mapping[str, Input], torch.Tensor]]:
    draw = torch.Generator().manual_seed(9)

    def positions(n: int) -> Input:
        mask = torch.arange(n) < torch.randint(0, n + 1, (BATCH, 1), generator=draw)
        return Given(torch.randn(BATCH, n, D, generator=draw), mask)

    found = []
    for _ in range(STEPS):
        inputs = {m: Given(torch.randn(BATCH, w, generator=draw)) for m, w in SIZES.items()}
        if family == "attention":
            inputs["image"] = positions(N)
        if family in ("question", "attention"):
            inputs["text"] = positions(T)
            if family == "attention" or name == "word_lstm":
                ids = torch.randint(1, SIZE, (BATCH, T), generator=draw)
                inputs["text"] = replace(inputs["text"], values=ids)
        found.append((inputs, torch.randint(0, ANSWERS, (BATCH,), generator=draw)))
    return found


def lane_step(models: list[Whole], lanes: list[Lane]) -> LaneStep:
    model = LaneModel(models, [lane.seed for lane in lanes])
    rates = torch.tensor([lane.lr for lane in lanes], dtype=torch.float64)
    optimizer = LaneAdamW(
        model.parameters(), model.decays, lr=rates, weight_decay=torch.full_like(rates, 0.01)
    )
    return LaneStep(
        model,
        LaneCrossEntropy([CrossEntropy() for _ in lanes]),
        optimizer,
        schedule=schedules.constant(STEPS),
    )


@pytest.mark.parametrize(("family", "name"), CASES, ids=[name for _, name in CASES])
def test_every_lane_equals_its_single_run(family: str, name: str) -> None:
    """Beside another for 30 steps, then alone."""
    step = lane_step([build(family, name, lane) for lane in LANES], LANES)
    data, single, lane = batches(family, name), build(family, name, LANES[1]), LANES[1]
    assert isinstance(step.model.model, EachLane) is (name not in ALIKE)
    state = torch.get_rng_state()
    for number, (inputs, targets) in enumerate(data):
        if number == 30:
            step.keep(torch.tensor([1]))
        step(inputs, targets, number)
    assert torch.equal(torch.get_rng_state(), state), "lanes draw from streams of their own"
    train_alone(single, lane, data)
    for own, (what, p) in zip(step.model.parameters(), single.named_parameters(), strict=True):
        difference = (own[0].reshape(p.shape) - p).norm() / p.norm().clamp_min(1e-3)
        assert difference <= 1e-4, what
    with torch.no_grad():
        said, expected = step.model.eval()(data[0][0]), single.eval()(data[0][0])
    assert torch.allclose(said[0], expected, atol=1e-3)


def train_alone(
    single: Whole, lane: Lane, data: list[tuple[Mapping[str, Input], torch.Tensor]]
) -> None:
    alone = TrainingStep(
        single,
        CrossEntropy(),
        optimizers.AdamW(single, lr=lane.lr, weight_decay=0.01),
        schedule=schedules.constant(STEPS),
        seed=lane.seed,
    )
    for number, (inputs, targets) in enumerate(data):
        alone(inputs, targets, number)


class Counting(nn.Module):
    """A user's own: it normalises with statistics, keeps a frozen table, and counts its calls."""

    table: torch.Tensor
    calls: torch.Tensor

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(11)
        self.output = nn.Linear(11, ANSWERS)
        self.frozen = nn.Parameter(torch.ones(ANSWERS), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2, 2))
        self.register_buffer("table", table)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        logits: torch.Tensor = self.output(self.norm(fused)) * self.frozen
        return logits + self.table[: len(logits)]


def test_a_model_of_ones_own_has_lanes() -> None:
    """Statistics are a lane's own, a buffer in the same memory is shared, and what has no gradient
    stays as it was."""
    table = torch.randn(BATCH, ANSWERS, generator=torch.Generator().manual_seed(1))

    def model(lane: Lane) -> Whole:
        torch.manual_seed(lane.seed)
        fusion = make("fusion", "concat", lane, SIZES)
        return Whole(fusion, Counting(table))

    assert not is_alike(model(LANES[0]))
    step = lane_step([model(lane) for lane in LANES], LANES)
    data = batches("head", "linear")[:5]
    for number, (inputs, targets) in enumerate(data):
        step(inputs, targets, number)
    each = step.model.model
    assert isinstance(each, EachLane)
    buffers = list(each.buffers())
    assert any(buffer.data_ptr() == table.data_ptr() for buffer in buffers)
    single = model(LANES[1])
    train_alone(single, LANES[1], data)
    for own, expected in zip(buffers, single.buffers(), strict=True):
        one = own if own.shape == expected.shape == table.shape else own[1]
        assert torch.allclose(one.float(), expected.float(), atol=1e-4)
    for own, p in zip(step.model.parameters(), single.parameters(), strict=True):
        assert own.requires_grad is p.requires_grad
        assert torch.allclose(own[1], p, atol=1e-5)


def test_one_lane_at_a_time_is_in_memory() -> None:
    """What a lane keeps for its gradient is gone before the next computes."""
    step = lane_step([build("attention", "stacked", lane) for lane in LANES], LANES)
    assert step.model.turns == [slice(0, 1), slice(1, 2)]
    live, most = 0, 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal live, most
        live += 1
        most = max(most, live)
        return tensor

    def unpack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal live
        live -= 1
        return tensor

    inputs, targets = batches("attention", "stacked")[0]
    counts = []
    for turns in (step.model.turns[:1], step.model.turns):
        live, most = 0, 0
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            for lanes in turns:
                loss = step.loss(step.model(inputs, lanes), targets, lanes)
                loss.sum().backward()
        counts.append(most)
    assert counts[1] <= 1.2 * counts[0]


def test_lanes_of_different_shape_are_refused() -> None:
    wide = build("attention", "stacked", LANES[0])
    wide.attention = families.ATTENTION.find("stacked")(
        Tokens(D, N), Vector(4), None, hidden=5, hops=1
    )
    with pytest.raises(ValueError, match="lanes differ in shape: weights of one are not those of"):
        LaneModel([build("attention", "stacked", LANES[0]), wide], [0, 1])
