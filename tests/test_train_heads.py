"""Heads and the answer matrix: values, gradients, refusals, the cosine head's floor."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch

from train import heads
from train.components import families
from train.components.lookup import takes
from train.errors import TrainError
from train.heads.cosine import CosineHead
from train.heads.linear import LinearHead
from train.heads.mlp import MlpHead
from train.layers.answer_vectors import Preparation, pairwise_cosines, prepare
from train.losses.cross_entropy import CrossEntropy

OPTIONS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [8]},
    "cosine": {"hidden": [8]},
    "type_gate": {"hidden": [8]},
    "sequence": {"layers": [8, "batch_norm", "tanh"]},
}


def build(name: str, in_features: int = 5, answers: int = 4) -> torch.nn.Module:
    factory = families.HEAD.find(name)
    given: list[Any] = [in_features, answers]
    if takes(factory, "answer_vectors"):
        given.append(torch.randn(answers, 7))
    if takes(factory, "answer_types"):
        given.append(torch.arange(answers) % 2)
    return factory(*given, **OPTIONS.get(name, {}))


@pytest.mark.parametrize("name", heads.HEADS)
def test_head_gives_a_logit_per_answer_and_every_weight_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    head = build(name)
    logits = head(torch.randn(9, 5))
    assert logits.shape == (9, 4)
    CrossEntropy()(logits, torch.arange(9) % 4).backward()
    without = [n for n, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert without == []


@pytest.mark.parametrize(
    ("lookup", "kind", "known"),
    [
        (families.HEAD.find, "head", "cosine, linear, mlp, sequence, type_gate"),
        (families.FUSION.find, "fusion", "concat, gmu, low_rank, product, sum"),
    ],
)
def test_unknown_name_lists_the_known_ones(lookup: Any, kind: str, known: str) -> None:
    with pytest.raises(TrainError, match=f"unknown {kind} 'nope'; known: {known}"):
        lookup("nope")


def test_mlp_layers_in_the_order_of_the_docstring() -> None:
    head = MlpHead(
        5,
        2,
        hidden=[4, 3],
        dropout=0.5,
        dropout_input=0.2,
        batch_norm=True,
        batch_norm_input=True,
    )
    kinds = [type(layer).__name__ for layer in head.layers]
    block = ["Linear", "BatchNorm1d", "ReLU", "Dropout"]
    assert kinds == ["BatchNorm1d", "Dropout", *block, *block]
    assert head.output.in_features == 3


def test_mlp_without_hidden_layers_is_linear() -> None:
    mlp, line = MlpHead(5, 2, hidden=[]), LinearHead(5, 2)
    line.output.load_state_dict(mlp.output.state_dict())
    rows = torch.randn(3, 5)
    assert torch.equal(mlp(rows), line(rows))


# ---------------------------------------------------------------- cosine


def test_cosines_are_in_fp32_under_autocast() -> None:
    """In bf16 a hundredth of the examples had two best answers alike at a scale near 100."""
    torch.manual_seed(0)
    head = CosineHead(16, 400, torch.randn(400, 32), hidden=[]).eval()
    head.output.requires_grad_(False)
    with torch.no_grad():
        assert head.log_scale is not None
        head.log_scale.fill_(4.5)
        fused = torch.randn(256, 16)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            predicted = MlpHead.forward(head, fused)
            logits = head(fused)
    unit = torch.nn.functional.normalize(predicted.double(), dim=-1)
    exact = unit @ head.answers.double().T * math.exp(4.5)
    assert logits.dtype == torch.float32
    assert (logits - exact).abs().max() < 1e-3
    best = logits.topk(2).values
    assert (best[:, 0] > best[:, 1]).all()


def trained_loss(head: CosineHead, fused: torch.Tensor, targets: torch.Tensor) -> float:
    """The lowest loss that direct optimisation of the head reaches."""
    loss = CrossEntropy()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        value = loss(head(fused), targets)
        value.backward()
        optimizer.step()
    return loss(head(fused), targets).item()


def test_without_a_scale_the_loss_cannot_fall_under_its_floor() -> None:
    """The best geometry there is: the truth points one way, the 999 others the opposite way."""
    torch.manual_seed(0)
    answers = 1000
    floor = math.log(1 + (answers - 1) * math.exp(-2))
    assert floor == pytest.approx(4.914, abs=5e-4)
    vectors = torch.zeros(answers, 4)
    vectors[:, 0] = -1
    vectors[0, 0] = 1
    fused, targets = torch.randn(8, 4), torch.zeros(8, dtype=torch.int64)

    unscaled = CosineHead(4, answers, vectors, hidden=[], answers="none", scaled=False)
    reached = trained_loss(unscaled, fused, targets)
    assert floor - 1e-4 <= reached <= floor + 0.01

    scaled = CosineHead(4, answers, vectors, hidden=[], answers="none")
    assert trained_loss(scaled, fused, targets) < 0.05


def test_unscaled_logits_stay_within_one() -> None:
    torch.manual_seed(0)
    head = CosineHead(5, 50, torch.randn(50, 8), hidden=[], answers="none", scaled=False)
    assert head.log_scale is None
    assert head(100 * torch.randn(64, 5)).abs().max() <= 1 + 1e-6


def test_cosine_logits_are_scale_times_cosine_plus_bias() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(6, 3)
    head = CosineHead(5, 6, vectors, hidden=[], answers="none", answer_bias=True)
    assert head.answer_bias is not None
    with torch.no_grad():
        head.answer_bias.copy_(torch.arange(6.0))
    rows = torch.randn(2, 5)
    predicted = head.output(rows)
    cosine = torch.nn.functional.cosine_similarity(predicted[:, None], vectors[None], dim=2)
    assert torch.allclose(head(rows), cosine / 0.07 + torch.arange(6.0), atol=1e-4)


def test_scale_is_capped_and_comes_back_from_the_cap() -> None:
    head = CosineHead(5, 6, torch.randn(6, 3), hidden=[])
    assert head.log_scale is not None
    assert head.scale().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        head.log_scale.fill_(10)
    assert head.eval().scale().item() == pytest.approx(100)
    scale = head.train().scale()
    scale.backward()
    assert scale.item() == pytest.approx(100)
    assert head.log_scale.item() == pytest.approx(math.log(100))
    assert head.log_scale.grad is not None
    assert head.log_scale.grad.item() == pytest.approx(100), "at the cap it still gets a gradient"


def test_answers_are_a_buffer_and_never_trained() -> None:
    head = CosineHead(5, 6, torch.randn(6, 3), hidden=[4])
    assert "answers" in head.state_dict()
    assert "answers" not in dict(head.named_parameters())


def test_answer_vectors_must_fit_the_vocabulary() -> None:
    with pytest.raises(ValueError, match=r"has shape \[5, 3\]; expected \[6, width\]"):
        CosineHead(5, 6, torch.randn(5, 3), hidden=[])


# ---------------------------------------------------------------- answer matrix


def narrow_cone(answers: int = 60, width: int = 8) -> torch.Tensor:
    """Vectors that share a large direction, as embeddings of short answers do."""
    torch.manual_seed(0)
    return torch.randn(answers, width) + 20


@pytest.mark.parametrize("how", ["centre", "zscore", "whiten", "none"])
def test_prepared_rows_have_length_one(how: Any) -> None:
    assert torch.allclose(prepare(narrow_cone(), how).norm(dim=1), torch.ones(60), atol=1e-5)


def test_centring_by_hand() -> None:
    prepared = prepare(torch.tensor([[3.0, 0.0], [1.0, 0.0]]), "centre")
    assert prepared.tolist() == [[1.0, 0.0], [-1.0, 0.0]]


def test_zscore_by_hand() -> None:
    # mean (1, 3), unbiased deviation (1, 3): rows become (-1, -1), (1, 0), (0, 1)
    vectors = torch.tensor([[0.0, 0.0], [2.0, 3.0], [1.0, 6.0]])
    root = math.sqrt(0.5)
    expected = torch.tensor([[-root, -root], [1.0, 0.0], [0.0, 1.0]])
    assert torch.allclose(prepare(vectors, "zscore"), expected, atol=1e-6)


@pytest.mark.parametrize("how", get_args(Preparation))
def test_others_are_prepared_with_the_statistics_of_the_trained_ones(how: Any) -> None:
    """Each row as it would be among them: alone it has no mean and no deviation of its own."""
    trained = narrow_cone()
    whole = prepare(trained, how)
    for some in (trained[7:9], trained[3:4]):
        expected = whole[7:9] if len(some) == 2 else whole[3:4]
        assert torch.allclose(prepare(some, how, like=trained), expected, atol=1e-5)


def test_a_head_with_a_bias_for_each_answer_is_offered_no_others() -> None:
    head = CosineHead(4, 60, narrow_cone(), hidden=[8], answer_bias=True)
    with pytest.raises(ValueError, match="a bias was learned for each answer"):
        head.offer(narrow_cone()[:2], narrow_cone())


def test_whitened_directions_are_uncorrelated() -> None:
    torch.manual_seed(0)
    mixed = torch.randn(4000, 6) @ torch.randn(6, 6) + 5
    prepared = prepare(mixed, "whiten")  # each row is scaled to length 1 at the end
    second = prepared.T @ prepared / len(prepared)
    assert torch.allclose(second, torch.eye(6) / 6, atol=0.02)


@pytest.mark.parametrize("answers", [5, 8])
def test_whitening_needs_more_answers_than_dimensions(answers: int) -> None:
    with pytest.raises(ValueError, match=f"found {answers} answers of 8 dimensions; use 'centre'"):
        prepare(torch.randn(answers, 8), "whiten")


def test_an_answer_equal_to_the_mean_stays_zero() -> None:
    prepared = prepare(torch.tensor([[1.0], [2.0], [3.0]]), "centre")
    assert prepared[1].tolist() == [0.0]


def test_pairwise_cosines_fall_when_the_common_direction_goes() -> None:
    before, after = pairwise_cosines(narrow_cone()), pairwise_cosines(narrow_cone(), "centre")
    assert before["mean"] > 0.99
    assert abs(after["mean"]) < 0.05
    assert after["min"] < after["p5"] < -0.3 < after["median"] < after["p95"] < after["max"]


def test_pairwise_cosines_by_hand() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])  # cosines 0, -1, 0
    figures = pairwise_cosines(vectors)
    assert figures["mean"] == pytest.approx(-1 / 3)
    assert (figures["min"], figures["median"], figures["max"]) == (-1, 0, 0)


def test_pairwise_cosines_need_two_answers() -> None:
    with pytest.raises(ValueError, match="at least 2 answers, found 1"):
        pairwise_cosines(torch.ones(1, 3))


def test_zscored_rows_may_stay_long_and_then_act_as_a_scale() -> None:
    vectors = narrow_cone(60, 6).double()
    expected = (vectors - vectors.mean(dim=0)) / vectors.std(dim=0)
    found = prepare(vectors, "zscore_long")
    assert torch.allclose(found.double(), expected, atol=1e-5)
    assert float(found.norm(dim=1).square().mean()) == pytest.approx(6, rel=0.05)
    assert pairwise_cosines(vectors, "zscore_long") == pytest.approx(
        pairwise_cosines(vectors, "zscore"), abs=1e-5
    )


def test_answers_normalised_over_the_wrong_axis_are_told_from_the_right_one() -> None:
    vectors = narrow_cone(60, 6)
    wrong, right = prepare(vectors, "l2_over_answers"), prepare(vectors, "none")
    assert torch.allclose(wrong.norm(dim=0), torch.ones(6), atol=1e-5)
    assert torch.allclose(wrong, torch.nn.functional.normalize(vectors.T.double(), dim=1).T.float())
    assert not torch.allclose(wrong, right, atol=0.1)
