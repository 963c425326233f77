"""Fusions: plain restatements, widths, gradients, parameter counts, transforms, refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from train.components import families
from train.components.lookup import options_of
from train.fusion import FUSIONS
from train.fusion.concat import Concat
from train.fusion.fusion import Fusion
from train.fusion.gmu import GatedMultimodalUnit
from train.fusion.low_rank import LowRank
from train.fusion.product import Product
from train.fusion.sum import Sum
from train.layers.transform import Transform

SIZES = {"image": 6, "text": 3}
EVEN = {"image": 4, "text": 4}
OPTIONS: dict[str, dict[str, Any]] = {
    "low_rank": {"dim": 6, "chunks": 2, "rank": 3, "out": 5},
    "gmu": {"dim": 5},
}


def rows(sizes: dict[str, int] = SIZES) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(5, width, generator=draw, requires_grad=True)
        for name, width in sizes.items()
    }


def apply(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x @ layer.get_parameter("weight").T + layer.get_parameter("bias")


def assert_same(join: Fusion, found: torch.Tensor, expected: torch.Tensor) -> None:
    """Values and gradients of a fusion and of its restatement."""
    assert torch.allclose(found, expected, atol=1e-6)
    both = []
    for output in (found, expected):
        weight = torch.linspace(-1, 1, output.numel()).view_as(output)
        both.append(torch.autograd.grad((output * weight).sum(), list(join.parameters())))
    for one, two in zip(*both, strict=True):
        assert torch.allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("transform", ["off", 4])
@pytest.mark.parametrize("sizes", [SIZES, {"text": 3}], ids=["both", "one"])
def test_fusion_has_the_width_it_says_and_passes_gradients(
    name: str, transform: Any, sizes: dict[str, int]
) -> None:
    torch.manual_seed(0)
    join = families.FUSION.find(name)(sizes, transform=transform, **OPTIONS.get(name, {}))
    inputs = rows(sizes)
    fused = join(inputs)
    assert fused.shape == (5, join.out_features)
    (fused * torch.randn_like(fused)).sum().backward()
    for modality, tensor in inputs.items():
        assert tensor.grad is not None, modality
        assert (tensor.grad.abs().sum(dim=1) > 0).all(), modality
    for parameter, tensor in join.named_parameters():
        assert tensor.grad is not None, parameter


@pytest.mark.parametrize("name", FUSIONS)
def test_every_fusion_has_the_transform(name: str) -> None:
    assert "transform" in options_of(families.FUSION.find(name))


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        ("off", {"image": 6, "text": 3}),
        ("preserve", {"image": 6, "text": 3}),
        ("smallest", {"image": 3, "text": 3}),
        ("largest", {"image": 6, "text": 6}),
        (7, {"image": 7, "text": 7}),
    ],
)
def test_a_transform_is_a_linear_layer_without_an_activation(
    width: Any, expected: dict[str, int]
) -> None:
    transform = Transform(SIZES, width)
    assert transform.sizes == expected
    found, inputs = transform(rows()), rows()
    for modality, size in expected.items():
        own = (
            inputs[modality]
            if width == "off"
            else apply(transform.layers[modality], inputs[modality])
        )
        assert found[modality].shape == (5, size)
        assert torch.allclose(found[modality], own)


def test_a_transform_without_width_is_refused() -> None:
    with pytest.raises(ValueError, match="transform is 0; expected a width of at least 1"):
        Concat(SIZES, transform=0)


def test_concat_puts_the_image_first() -> None:
    inputs = {"image": torch.ones(2, 6), "text": torch.zeros(2, 3)}
    assert Concat(SIZES)(inputs).tolist() == [[1.0] * 6 + [0.0] * 3] * 2


@pytest.mark.parametrize(
    ("activation", "product", "total"),
    [
        ("tanh", math.tanh(2) * math.tanh(-3), math.tanh(2) + math.tanh(-3)),
        ("relu", 0, 2),
        ("none", -6, -1),
    ],
)
def test_projections_are_multiplied_or_added(activation: Any, product: float, total: float) -> None:
    for kind, expected in ((Product, product), (Sum, total)):
        join = kind({"image": 1, "text": 1}, dim=1, activation=activation)
        with torch.no_grad():
            for projection in join.projections.values():
                projection.weight.fill_(1)
                projection.bias.fill_(0)
        fused = join({"image": torch.tensor([[2.0]]), "text": torch.tensor([[-3.0]])})
        assert fused.item() == pytest.approx(expected)


def test_product_with_l2_keeps_directions_alone() -> None:
    join = Product({"image": 4}, dim=9, activation="none", l2=True)
    with torch.no_grad():
        join.projections["image"].bias.zero_()
    row = torch.randn(1, 4)
    assert torch.allclose(join({"image": row}), join({"image": 5 * row}), atol=1e-6)
    assert join({"image": row}).norm().item() == pytest.approx(3.0, rel=1e-5)


# ---------------------------------------------------------------- gated multimodal unit


@pytest.mark.parametrize(
    ("form", "sizes"), [("a", EVEN), ("b", EVEN), ("c", SIZES), ("paper", SIZES)]
)
def test_gmu_is_what_the_papers_say(form: Any, sizes: dict[str, int]) -> None:
    torch.manual_seed(0)
    join, inputs = GatedMultimodalUnit(sizes, form=form, dim=5), rows(sizes)
    image, text = inputs["image"], inputs["text"]
    both = torch.cat([image, text], dim=1)
    if form == "paper":
        h_image = apply(join.hidden["image"], image).tanh()
        h_text = apply(join.hidden["text"], text).tanh()
        z = apply(join.gates["gate"], both).sigmoid()
        expected = z * h_image + (1 - z) * h_text
    else:
        g_image = apply(join.gates["image"], image if form == "a" else both).sigmoid()
        g_text = apply(join.gates["text"], text if form == "a" else both).sigmoid()
        divisor = 1 if form == "c" else g_image + g_text
        expected = torch.cat([image * g_image / divisor, text * g_text / divisor], dim=1)
    assert_same(join, join(inputs), expected)


@pytest.mark.parametrize(
    ("form", "parameters"),
    [
        ("a", 2 * (768 * 768 + 768)),
        ("b", 2_360_832),
        ("c", 2_360_832),
        ("paper", 2 * (768 * 512 + 512) + 1536 * 512 + 512),
    ],
)
def test_gmu_parameters_are_counted(form: Any, parameters: int) -> None:
    join = GatedMultimodalUnit({"image": 768, "text": 768}, form=form, dim=512)
    assert sum(p.numel() for p in join.parameters()) == parameters


def test_gates_that_share_one_sum_need_one_width() -> None:
    message = "form is 'a', which divides gates by their sum, and the widths are 6 and 3; set tran"
    with pytest.raises(ValueError, match=message):
        GatedMultimodalUnit(SIZES, form="a")
    assert GatedMultimodalUnit(SIZES, form="a", transform="smallest").out_features == 6
    with pytest.raises(ValueError, match="form is 'paper', of 2 modalities; found 3"):
        GatedMultimodalUnit({"image": 1, "text": 2, "more": 3}, form="paper")


# ---------------------------------------------------------------- low rank


@pytest.mark.parametrize("normalised", [False, True])
def test_low_rank_is_a_bilinear_product(normalised: bool) -> None:
    """out_k = sum over i, j of T_ijk x_i y_j in each chunk, T written out from its factors."""
    torch.manual_seed(0)
    join = LowRank(SIZES, dim=6, chunks=2, rank=3, out=5, normalised=normalised)
    inputs = rows()
    image = apply(join.projections["image"], inputs["image"])
    text = apply(join.projections["text"], inputs["text"])
    found = []
    for chunk in range(2):
        own = slice(3 * chunk, 3 * chunk + 3)
        one = torch.cat([image[:, own], torch.ones(5, 1)], dim=1)
        two = torch.cat([text[:, own], torch.ones(5, 1)], dim=1)
        core = torch.zeros(4, 4, 3)
        for r in range(3):
            left, right = (
                torch.cat([f.weight[chunk], f.bias[chunk][:, None]], dim=1)[3 * r : 3 * r + 3]
                for f in (join.factors["image"], join.factors["text"])
            )
            core = core + torch.einsum("ki,kj->ijk", left, right)
        joined = torch.einsum("bi,bj,ijk->bk", one, two, core)
        if normalised:
            joined = functional.normalize(joined.sign() * joined.abs().sqrt(), dim=1)
        found.append(joined)
    assert_same(join, join(inputs), apply(join.output, torch.cat(found, dim=1)))


def test_low_rank_parameters_are_counted() -> None:
    join = LowRank({"image": 2048, "text": 4800}, dim=1600, chunks=20, rank=15, out=1000)
    factors = 2 * 20 * (80 * 80 * 15 + 80 * 15)
    projections = (2048 + 1) * 1600 + (4800 + 1) * 1600
    assert sum(p.numel() for p in join.parameters()) == factors + projections + 1601 * 1000


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("product", {"dim": 0}, "dim is 0; expected at least 1"),
        ("sum", {"dim": 0}, "dim is 0; expected at least 1"),
        ("gmu", {"dim": 0}, "dim is 0; expected at least 1"),
        ("low_rank", {"dim": 7, "chunks": 2}, "dim is 7, chunks 2, rank 15, out 1024; expected"),
        ("low_rank", {"rank": 0}, "rank 0, out 1024; expected at least 1 each"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        families.FUSION.find(name)(SIZES, **options)


def test_inputs_of_length_one_before_the_projection_and_projections_of_length_one_after() -> None:
    """The two places at which a journal scales: its own form of the product, restated."""
    join = Product(SIZES, dim=5, activation="relu", l2=True, rescale=False, l2_inputs=["image"])
    inputs = rows()
    short = functional.normalize(inputs["image"], dim=1)
    image = functional.normalize(apply(join.projections["image"], short).relu(), dim=1)
    text = functional.normalize(apply(join.projections["text"], inputs["text"]).relu(), dim=1)
    assert_same(join, join(inputs), image * text)
    rescaled = Product(SIZES, dim=5, activation="relu", l2=True, l2_inputs=["image"])
    rescaled.load_state_dict(join.state_dict())
    assert torch.allclose(rescaled(inputs), image * text * math.sqrt(5), atol=1e-6)


@pytest.mark.parametrize("name", FUSIONS)
def test_scaling_at_evaluation_alone_differs_from_scaling_always(name: str) -> None:
    """A journal left the line out of its training; every fusion can show what that does."""
    made = {}
    for at in ("always", "evaluation"):
        torch.manual_seed(0)
        made[at] = families.FUSION.find(name)(
            SIZES, l2_inputs=["image"], l2_inputs_at=at, **OPTIONS.get(name, {})
        )
    inputs = rows()
    both = {at: (join.train()(inputs), join.eval()(inputs)) for at, join in made.items()}
    assert torch.allclose(both["always"][0], both["always"][1])
    assert torch.allclose(both["always"][1], both["evaluation"][1])
    assert not torch.allclose(both["evaluation"][0], both["evaluation"][1], atol=1e-3)


def test_dropout_before_the_projections_is_off_while_evaluating() -> None:
    join = Product({"image": 400, "text": 400}, dim=3, dropout=0.5, activation="none")
    inputs = rows({"image": 400, "text": 400})
    with torch.no_grad():
        assert torch.equal(join.eval()(inputs), join.eval()(inputs))
        assert not torch.equal(join.train()(inputs), join.eval()(inputs))


@pytest.mark.parametrize(
    ("sizes", "options", "parameters"),
    [
        ({"image": 768, "text": 768}, {}, 2_360_832),
        ({"image": 1280, "text": 768}, {}, (1280 + 768) * (2048 + 1)),
    ],
)
def test_gates_over_both_modalities_have_their_published_size(
    sizes: dict[str, int], options: dict[str, Any], parameters: int
) -> None:
    join = GatedMultimodalUnit(sizes, form="c", **options)
    assert sum(p.numel() for p in join.parameters()) == parameters


def test_a_product_of_rows_as_they_are_and_of_one_filled_up_with_ones() -> None:
    even = Product(EVEN, dim=4, projected=[])
    inputs = rows(EVEN)
    assert list(even.parameters()) == []
    assert torch.equal(even(inputs), inputs["image"] * inputs["text"])
    padded, inputs = Product(SIZES, dim=6, projected=[], pad_ones=True), rows()
    assert torch.equal(padded(inputs)[:, :3], inputs["image"][:, :3] * inputs["text"])
    assert torch.equal(padded(inputs)[:, 3:], inputs["image"][:, 3:])
    one = Product(SIZES, dim=6, projected=["text"], activation="none")
    expected = rows()["image"] * apply(one.projections["text"], rows()["text"])
    assert_same(one, one(rows()), expected)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"dim": 6}, r"text has 3 numbers and is not projected; expected dim \(6\) of them"),
        ({"dim": 5, "pad_ones": True}, "image has 6 numbers and is not projected; expected dim"),
    ],
)
def test_widths_that_do_not_multiply_are_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Product(SIZES, projected=[], **options)
