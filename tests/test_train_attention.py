"""Attentions against plain restatements of their papers; masks, distinct rows, counts, refusals."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from train.attention import ATTENTIONS
from train.components import families
from train.inputs.specification import Encoded, Grid, Input, Tokens, Vector
from train.layers.positions import ReadPositions, cell_boxes

Make = dict[str, torch.Tensor]  # the parameters of a module, by name

B, U, N, T, D, Q = 5, 3, 4, 3, 6, 8  # examples, images, positions, words, widths
IMAGE, QUESTION, STATES = Tokens(D, N, boxes=True), Vector(Q), Tokens(Q, T)
OPTIONS: dict[str, dict[str, Any]] = {
    "stacked": {"hidden": 7, "hops": 3},
    "bottom_up": {"hidden": 7},
    "mcan": {"layers": 2, "dim": 4, "heads": 2, "out": 5, "dropout": 0.0},
    "bilinear": {"glimpses": 2, "dim": 7},
    "multi_query": {"queries": 2, "dim": 6},
}
CASES = [(name, {}) for name in ATTENTIONS] + [
    ("bottom_up", {"form": "repository"}),
    ("multi_query", {"conditioned": False}),
]


def build(name: str, image: Any = IMAGE, states: Tokens | None = STATES, **more: Any) -> nn.Module:
    torch.manual_seed(3)
    given = [image, QUESTION, states]
    module = families.ATTENTION.find(name)(*given, **OPTIONS[name] | more)
    for parameter in module.parameters():  # nothing at zero, so that no part can hide
        if not parameter.any():
            nn.init.normal_(parameter)
    return module.double()


def image_input(index: torch.Tensor | None = None, rows: int = B) -> Input:
    """Positions of which some are hidden; of the last image all."""
    draw = torch.Generator().manual_seed(1)
    mask = torch.rand(rows, N, generator=draw) < 0.7
    mask[:, 0], mask[-1] = True, False
    values = torch.randn(rows, N, D, generator=draw, dtype=torch.float64)
    boxes = torch.rand(rows, N, 4, generator=draw, dtype=torch.float64)
    return Input(values, mask, index, boxes)


def encoded(index: torch.Tensor | None = None, rows: int = B) -> Encoded:
    draw = torch.Generator().manual_seed(2)
    states = torch.randn(rows, T, Q, generator=draw, dtype=torch.float64)
    mask = torch.arange(T) < torch.tensor([3, 1, 2, 3, 2])[:rows, None]
    vector = torch.randn(B, Q, generator=draw, dtype=torch.float64)
    return Encoded(vector, Input(states, mask, index))


# ---------------------------------------------------------------- plain restatements, one example


def linear(p: Make, name: str, x: torch.Tensor) -> torch.Tensor:
    y = x @ p[f"{name}.weight"].T
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def norm(p: Make, name: str, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]


def stacked(p: Make, v: torch.Tensor, q: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    v = linear(p, "value", v).tanh()
    for hop in range(3):
        lead = linear(p, f"hops.{hop}.lead", q)
        joined = (linear(p, f"hops.{hop}.key", v) + lead).tanh()
        q = q + linear(p, f"hops.{hop}.score", joined)[:, 0].softmax(0) @ v
    return q


def bottom_up(p: Make, v: torch.Tensor, q: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    both = torch.cat([v, q.expand(len(v), -1)], dim=1)
    weight = torch.cat([p["key.weight"], p["lead.weight"]], dim=1)
    value, gate = (both @ weight.T + p["lead.bias"]).split(7, dim=1)
    return linear(p, "score", value.tanh() * gate.sigmoid())[:, 0].softmax(0) @ v


def repository(p: Make, v: torch.Tensor, q: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    joined = linear(p, "key", v).relu() * linear(p, "lead", q).relu()
    return linear(p, "score", joined)[:, 0].softmax(0) @ v


def heads(p: Make, name: str, x: torch.Tensor, over: torch.Tensor) -> torch.Tensor:
    query, key = linear(p, f"{name}.query", x), linear(p, f"{name}.key", over)
    value, found = linear(p, f"{name}.value", over), []
    for own in (slice(0, 2), slice(2, 4)):
        weights = (query[:, own] @ key[:, own].T / math.sqrt(2)).softmax(1)
        found.append(weights @ value[:, own])
    return linear(p, f"{name}.output", torch.cat(found, dim=1))


def feed(p: Make, name: str, x: torch.Tensor) -> torch.Tensor:
    fed = linear(p, f"{name}.output", linear(p, f"{name}.inner", x).relu())
    return norm(p, f"{name}.norm", x + fed)


def attend(p: Make, name: str, x: torch.Tensor) -> torch.Tensor:
    return norm(p, f"{name}.norm", x + heads(p, f"{name}.attention", x, x))


def reduction(p: Make, name: str, x: torch.Tensor) -> torch.Tensor:
    scores = linear(p, f"{name}.score", linear(p, f"{name}.inner", x).relu())[:, 0]
    return linear(p, f"{name}.output", scores.softmax(0) @ x)


def mcan(p: Make, v: torch.Tensor, _: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    v, s = linear(p, "image", v), linear(p, "words", s)
    for layer in range(2):
        s = feed(p, f"encoder.{layer}.feed", attend(p, f"encoder.{layer}.attend", s))
    for layer in range(2):
        unit = f"decoder.{layer}"
        v = attend(p, f"{unit}.attend", v)
        v = norm(p, f"{unit}.norm", v + heads(p, f"{unit}.guided", v, s))
        v = feed(p, f"{unit}.feed", v)
    return norm(p, "norm", reduction(p, "reduce_words", s) + reduction(p, "reduce_image", v))


def bilinear(p: Make, v: torch.Tensor, _: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    x, y = linear(p, "query", s).relu(), linear(p, "key", v).relu()
    for glimpse, weight in enumerate(p["scores"]):
        scores = torch.einsum("tk,k,nk->tn", x, weight, y)
        shares = scores.flatten().softmax(0).view_as(scores)
        states = linear(p, f"glimpses.{glimpse}.state", s).relu()
        values = linear(p, f"glimpses.{glimpse}.value", v).relu()
        pooled = torch.einsum("tk,tn,nk->k", states, shares, values)
        s = s + linear(p, f"glimpses.{glimpse}.output", pooled)
    return s.sum(0)


def multi_query(p: Make, v: torch.Tensor, q: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    scores = p["queries"] @ v.T / math.sqrt(v.shape[1])
    if "mix.weight" in p:
        scores = scores + linear(p, "mix", q).view(2, 2) @ scores
    values = linear(p, "value", v)
    parts = [row.softmax(0) @ part for row, part in zip(scores, values.split(3, 1), strict=True)]
    return torch.cat(parts)


PLAIN: dict[str, Callable[[Make, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "stacked": stacked,
    "bottom_up": bottom_up,
    "mcan": mcan,
    "bilinear": bilinear,
    "multi_query": multi_query,
}


def restated(name: str, module: nn.Module, image: Input, question: Encoded) -> torch.Tensor:
    """Each example alone, without its padding; the empty position where nothing is there."""
    parameters = dict(module.named_parameters())
    rule = repository if getattr(module, "form", "paper") == "repository" else PLAIN[name]
    assert image.mask is not None
    assert question.states is not None
    assert question.states.mask is not None
    rows = []
    for example in range(B):
        there = image.mask[example]
        v = image.values[example][there] if there.any() else parameters["read.empty.position"][None]
        s = question.states.values[example][question.states.mask[example]]
        rows.append(rule(parameters, v, question.vector[example], s))
    return torch.stack(rows)


def gradients(module: nn.Module, output: torch.Tensor) -> list[torch.Tensor]:
    weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    found = torch.autograd.grad((output * weight).sum(), list(module.parameters()))
    return list(found)


def assert_equal(one: list[torch.Tensor], two: list[torch.Tensor], tolerance: float = 1e-9) -> None:
    for first, second in zip(one, two, strict=True):
        assert torch.allclose(first, second, atol=tolerance, rtol=tolerance)


# ---------------------------------------------------------------- what every attention keeps


@pytest.mark.parametrize(("name", "more"), CASES)
def test_forward_and_gradients_are_those_of_the_paper(name: str, more: dict[str, Any]) -> None:
    module, image, question = build(name, **more), image_input(), encoded()
    found, expected = module(image, question), restated(name, module, image, question)
    assert found.shape == (B, module.gives.d)
    assert torch.allclose(found, expected, atol=1e-10)
    assert_equal(gradients(module, found), gradients(module, expected))


@pytest.mark.parametrize(("name", "more"), CASES)
def test_padding_changes_no_number(name: str, more: dict[str, Any]) -> None:
    module, image, question = build(name, **more), image_input(), encoded()
    words = question.states
    assert words is not None
    longer = Encoded(question.vector, padded(words))
    found, expected = module(padded(image), longer), module(image, question)
    assert torch.allclose(found, expected, atol=1e-10)
    assert_equal(gradients(module, found), gradients(module, expected))


def padded(positions: Input) -> Input:
    """Two more positions, masked, which hold what nobody should read."""
    assert positions.mask is not None
    values = nn.functional.pad(positions.values, (0, 0, 0, 2), value=1e3)
    return replace(positions, values=values, mask=nn.functional.pad(positions.mask, (0, 2)))


@pytest.mark.parametrize(("name", "more"), CASES)
def test_distinct_rows_give_what_repeated_rows_give(name: str, more: dict[str, Any]) -> None:
    module = build(name, **more).float()
    index = torch.tensor([0, 0, 1, 2, 2])
    image, question = image_input(index, rows=U), encoded(index, rows=U)
    words = question.states
    assert words is not None
    few = as_float(image), Encoded(question.vector.float(), as_float(words))
    many = repeated(few[0]), Encoded(few[1].vector, repeated(as_float(words)))
    found, expected = module(*few), module(*many)
    assert torch.allclose(found, expected, atol=1e-5)
    assert_equal(gradients(module, found), gradients(module, expected), 1e-5)


def as_float(rows: Input) -> Input:
    return replace(rows, values=rows.values.float())


def repeated(rows: Input) -> Input:
    assert rows.mask is not None
    boxes = None if rows.boxes is None else rows.spread(rows.boxes)
    return Input(rows.spread(rows.values), rows.spread(rows.mask), None, boxes)


@pytest.mark.parametrize(("name", "more"), CASES)
def test_a_grid_needs_no_mask(name: str, more: dict[str, Any]) -> None:
    module = build(name, Grid(2, 2, D), **more)
    image = image_input()
    found = module(Input(image.values), encoded())
    assert image.mask is not None
    everything = torch.ones_like(image.mask)
    expected = restated(name, module, replace(image, mask=everything), encoded())
    assert torch.allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_boxes_stand_beside_the_values(name: str) -> None:
    image = image_input()
    assert image.boxes is not None
    wide = replace(image, values=torch.cat([image.values, image.boxes], dim=2))
    module = build(name, boxes=True)
    plain = build(name, Tokens(D + 4, N))
    plain.load_state_dict(module.state_dict())
    assert torch.allclose(module(image, encoded()), plain(wide, encoded()))


def test_the_cells_of_a_grid_are_boxes() -> None:
    cells = cell_boxes(Grid(2, 4, D))
    assert cells[:5].tolist() == [
        [0.0, 0.0, 0.25, 0.5],
        [0.25, 0.0, 0.25, 0.5],
        [0.5, 0.0, 0.25, 0.5],
        [0.75, 0.0, 0.25, 0.5],
        [0.0, 0.5, 0.25, 0.5],
    ]
    read = ReadPositions(Grid(2, 4, D), boxes=True)
    assert read(Input(torch.zeros(2, 8, D))).values[1, :, D:].equal(cells)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_boxes_that_are_not_there_are_refused(name: str) -> None:
    message = "boxes is true, and the image gives up to 4 tokens of 6 without boxes"
    with pytest.raises(ValueError, match=message):
        build(name, Tokens(D, N), boxes=True)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_states_are_asked_for_in_the_signature_where_they_are_needed(name: str) -> None:
    asked = inspect.get_annotations(families.ATTENTION.find(name).__init__)["states"]
    assert asked == ("Tokens" if name == "mcan" else "Tokens | None")
    if name != "mcan":
        module = build(name, states=None)
        assert module(image_input(), Encoded(encoded().vector, None)).shape == (B, module.gives.d)


@pytest.mark.parametrize("name", ["stacked", "bottom_up", "bilinear", "mcan"])
def test_dropout_draws_in_training_alone(name: str) -> None:
    module, image, question = build(name, dropout=0.5), image_input(), encoded()
    assert not torch.equal(module(image, question), module(image, question))
    module.eval()
    assert torch.equal(module(image, question), module(image, question))


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # v = tanh(W f + b); two hops of W_v (no bias), W_q and b, w
        ("stacked", 2048 * 512 + 512 + 2 * (2 * 512 * 512 + 512 + 512)),
        # f reads [v; q], has a gate, and is scored by w
        ("bottom_up", 2 * ((2048 + 512) * 512 + 512) + 512),
        # the published small model: 6 SA, 6 SGA, two reductions, the norm and the projection
        ("mcan", 46_757_376),
        # U, V, four p, and four glimpses of three projections
        (
            "bilinear",
            (2048 + 512 + 2) * 512 + 4 * 512 + 4 * ((2048 + 1) * 512 + 2 * 512 * 513),
        ),
        # queries, W without a bias, and the mixing of 16 queries
        ("multi_query", 16 * 2048 + 2048 * 512 + 512 * 256 + 256),
    ],
)
def test_parameters_are_counted(name: str, parameters: int) -> None:
    with torch.device("meta"):
        made = families.ATTENTION.find(name)(Grid(6, 6, 2048), Vector(512), Tokens(512, 14))
    assert sum(p.numel() for p in made.parameters()) == parameters


def test_mcan_small_by_hand() -> None:
    """Without the biases of keys and of the reductions' scores, which a softmax ignores."""
    d, heads_, norms = 512, 4 * 512 * 512 + 3 * 512, 2 * 512
    fed = 2 * d * 4 * d + 4 * d + d
    units = 6 * (heads_ + fed + 2 * norms) + 6 * (2 * heads_ + fed + 3 * norms)
    reductions = 2 * (d * d + d + d + d * 1024 + 1024)
    assert units + reductions + 2 * 1024 + 2048 * 512 + 512 == 46_757_376


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("stacked", {"hops": 4}, "hops is 4; expected 1 to 3"),
        ("stacked", {"hidden": 0}, "hidden is 0; expected at least 1"),
        ("bottom_up", {"hidden": 0}, "hidden is 0; expected at least 1"),
        ("bottom_up", {"dropout": 1.0}, "dropout is 1.0; expected 0 <= dropout < 1"),
        ("mcan", {"heads": 3}, "heads is 3; expected a divisor of the width 4"),
        ("mcan", {"layers": 0}, "layers is 0, dim 4, heads 2, out 5; expected at least 1 each"),
        ("bilinear", {"glimpses": 0}, "glimpses is 0 and dim 7; expected at least 1 of both"),
        ("multi_query", {"queries": 4}, "queries is 4; expected a divisor of dim, which is 6"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **options)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_low_precision_stays_near(name: str) -> None:
    """Under autocast no two types meet, and inputs in bf16 are taken as they are."""
    module = build(name).float()
    image, question = as_float(image_input()), encoded()
    words = question.states
    assert words is not None
    exact = Encoded(question.vector.float(), as_float(words))
    small = replace(image, values=image.values.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(small, exact)
        found.float().sum().backward()
    expected = copy.deepcopy(module)(image, exact)
    assert (found.float() - expected).norm() <= 0.05 * expected.norm()
