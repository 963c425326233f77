"""Question branches: nn.LSTM and nn.GRU on each unpadded question alone, padding, distinct rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from train.components import families
from train.components.lookup import options_of
from train.inputs.specification import Encoded, Input, Tokens, Words
from train.layers.recurrent import Recurrent
from train.questions import QUESTIONS
from train.questions.attention_pool import AttentionPool
from train.questions.token_lstm import TokenLstm
from train.questions.word_lstm import WordLstm

LENGTHS = [3, 5, 0, 1, 4]
U, T, D, SIZE = len(LENGTHS), 5, 6, 11
GIVEN: dict[str, Any] = {
    "word_lstm": Words(SIZE, T),
    "token_lstm": Tokens(D, T),
    "attention_pool": Tokens(D, T),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "word_lstm": {"dim": D, "hidden": 4, "embedding_activation": "tanh"},
    "token_lstm": {"hidden": 4, "layers": 2, "direction": "both", "state": "all_both"},
    "attention_pool": {"hidden": 4, "glimpses": 2, "projection": 3, "activation": "relu"},
}
SHAPES = [
    {"cell": cell, "layers": layers, "direction": direction}
    for cell in ("lstm", "gru")
    for layers in (1, 2)
    for direction in ("forward", "both")
]


def build(name: str, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = families.QUESTION.find(name)(GIVEN[name], **OPTIONS[name] | more)
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter)
    return module.double()


def question(name: str, index: torch.Tensor | None = None) -> Input:
    draw = torch.Generator().manual_seed(1)
    mask = torch.arange(T) < torch.tensor(LENGTHS)[:, None]
    if name == "word_lstm":
        return Input(torch.randint(1, SIZE, (U, T), generator=draw) * mask, mask, index)
    values = torch.randn(U, T, D, generator=draw, dtype=torch.float64)
    return Input(values, mask, index)


def gradients(module: nn.Module, found: Encoded) -> list[torch.Tensor]:
    """Of a number that every element of the vector and of the states that are there counts in."""
    assert found.states is not None
    assert found.states.mask is not None
    states = found.states.spread(found.states.values * found.states.mask[..., None])
    total = (found.vector * torch.linspace(-1, 1, found.vector.shape[1])).sum() + states.sum()
    return list(torch.autograd.grad(total, list(module.parameters()), materialize_grads=True))


def assert_equal(one: list[torch.Tensor], two: list[torch.Tensor]) -> None:
    for first, second in zip(one, two, strict=True):
        assert torch.allclose(first, second, atol=1e-10)


def reference(own: Recurrent, shape: dict[str, Any]) -> nn.LSTM | nn.GRU:
    """The module of torch with the same weights."""
    kind = nn.LSTM if shape["cell"] == "lstm" else nn.GRU
    both = shape["direction"] == "both"
    made = kind(D, 4, num_layers=shape["layers"], bidirectional=both, batch_first=True).double()
    names = [f"l{n}{way}" for n in range(shape["layers"]) for way in ["", "_reverse"][: own.ways]]
    with torch.no_grad():
        for name, run in zip(names, own.runs, strict=True):
            for ours, theirs in (("input", "ih"), ("state", "hh")):
                for kind_of in ("weight", "bias"):
                    value = run.get_parameter(f"{ours}.{kind_of}")
                    getattr(made, f"{kind_of}_{theirs}_{name}").copy_(value)
    return made


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def test_every_row_is_read_as_by_torch_alone(shape: dict[str, Any], holes: bool) -> None:
    torch.manual_seed(0)
    own = Recurrent(D, 4, **shape).double()
    rows = question("token_lstm")
    assert rows.mask is not None
    if holes:
        rows.mask[1, 2] = rows.mask[4, 0] = False
    states, ends = own(rows)
    torchs = reference(own, shape)
    total, expected_total = states.new_zeros(()), states.new_zeros(())
    for row in range(U):
        there = rows.mask[row]
        if not there.any():
            continue
        expected, last = torchs(rows.values[row][there][None])
        hidden, cell = last if shape["cell"] == "lstm" else (last, None)
        assert torch.allclose(states[row][there], expected[0], atol=1e-12)
        assert torch.allclose(torch.stack([one[row] for one in ends.hidden]), hidden[:, 0])
        if cell is not None:
            assert torch.allclose(torch.stack([one[row] for one in ends.cell]), cell[:, 0])
        total = total + states[row][there].square().sum() + ends.hidden[0][row].sum()
        expected_total = expected_total + expected.square().sum() + hidden[0].sum()
    total.backward()
    expected_total.backward()
    by_size = [sorted(p.grad.abs().sum().item() for p in m.parameters() if p.grad is not None)
               for m in (own, torchs)]  # fmt: skip
    assert by_size[0] == pytest.approx(by_size[1], rel=1e-10)


def test_recurrent_weights_begin_as_those_of_torch() -> None:
    own = Recurrent(30, 25, cell="lstm", layers=2, direction="both")
    theirs = nn.LSTM(30, 25, num_layers=2, bidirectional=True)
    count = [sum(p.numel() for p in module.parameters()) for module in (own, theirs)]
    assert count[0] == count[1]
    for parameter in own.parameters():
        assert 0.18 < parameter.abs().max() <= 0.2


def test_an_lstm_waits_for_no_device() -> None:
    """Where lengths cannot be read for free every row goes on to the end, to the same numbers."""
    own = build("token_lstm").recurrent
    rows = question("token_lstm")
    x, mask = rows.values, rows.mask
    for run in own.runs[:2]:
        all_rows, (hidden, cell) = run(x, mask, [U] * T)
        assert mask is not None
        for row in (row for row in range(U) if LENGTHS[row]):
            alone, (own_hidden, own_cell) = run(x[row][mask[row]][None], None, [1] * T)
            assert torch.allclose(all_rows[row][mask[row]], alone[0])
            assert torch.allclose(hidden[row], own_hidden[0])
            assert torch.allclose(cell[row], own_cell[0])


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_branch_gives_what_it_says(name: str) -> None:
    module = build(name)
    found = module(question(name))
    assert found.vector.shape == (U, module.gives.d)
    assert found.states is not None
    assert found.states.values.shape == (U, T, module.states.d)
    assert module.states.longest == T


@pytest.mark.parametrize("name", QUESTIONS)
def test_padding_changes_no_number(name: str) -> None:
    module, given = build(name), question(name)
    assert given.mask is not None
    pad = (0, 2) if name == "word_lstm" else (0, 0, 0, 2)
    values = nn.functional.pad(given.values, pad, value=7)
    longer = Input(values, nn.functional.pad(given.mask, (0, 2)))
    found, expected = module(longer), module(given)
    assert torch.allclose(found.vector, expected.vector, atol=1e-12)
    assert_equal(gradients(module, found), gradients(module, expected))


@pytest.mark.parametrize("name", QUESTIONS)
def test_distinct_questions_give_what_repeated_ones_give(name: str) -> None:
    module, index = build(name), torch.tensor([1, 1, 0, 2, 4, 3, 3])
    few = question(name, index)
    assert few.mask is not None
    found = module(few)
    expected = module(Input(few.values[index], few.mask[index]))
    assert torch.allclose(found.vector, expected.vector, atol=1e-12)
    assert_equal(gradients(module, found), gradients(module, expected))


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_without_words_is_one_learned_position(name: str) -> None:
    module, given = build(name), question(name)
    found = module(given)
    assert found.vector[2].isfinite().all()
    assert found.states is not None
    assert found.states.mask is not None
    assert found.states.mask[2].tolist() == [True] + [False] * (T - 1)
    (gradient,) = torch.autograd.grad(found.vector[2].sum(), module.empty.position)
    assert gradient.any()
    assert not torch.autograd.grad(module(given).vector[:2].sum(), module.empty.position)[0].any()


def test_attention_pool_by_hand() -> None:
    pool = build("attention_pool")
    given = question("attention_pool")
    assert given.mask is not None
    found = pool(given).vector
    for row, length in enumerate(LENGTHS):
        x = given.values[row][:length] if length else pool.empty.position[None]
        inner = (x @ pool.inner.weight.T + pool.inner.bias).tanh() @ pool.score.weight.T
        pooled = torch.cat([inner[:, glimpse].softmax(0) @ x for glimpse in range(2)])
        expected = (pooled @ pool.projection.linear.weight.T + pool.projection.linear.bias).relu()
        assert torch.allclose(found[row], expected)


# ---------------------------------------------------------------- what systems of the field read


@pytest.mark.parametrize(
    ("options", "width", "parameters"),
    [
        # 300 -> tanh -> LSTM 512 -> (h, c) -> linear 1024, tanh
        (
            {"state": "both", "projection": 1024, "embedding_activation": "tanh"},
            1024,
            300 * 1001 + 4 * 512 * (300 + 512 + 2) + 1024 * 1025,
        ),
        # h and c of two layers: 2,048
        (
            {"layers": 2, "state": "all_both", "dim": 200},
            2048,
            200 * 1001 + 4 * 512 * (200 + 512 + 2) + 4 * 512 * (512 + 512 + 2),
        ),
        # h of two layers in two directions: 2,048
        (
            {"layers": 2, "direction": "both", "state": "all", "dim": 50},
            2048,
            50 * 1001 + 2 * 4 * 512 * (50 + 512 + 2) + 2 * 4 * 512 * (1024 + 512 + 2),
        ),
        ({"cell": "gru", "hidden": 1024}, 1024, 300 * 1001 + 3 * 1024 * (300 + 1024 + 2)),
    ],
)
def test_published_branches_have_their_sizes(
    options: dict[str, Any], width: int, parameters: int
) -> None:
    """Words of 1,000 and one learned position."""
    branch = WordLstm(Words(1000, 20), **options)
    assert branch.gives.d == width
    assert sum(p.numel() for p in branch.parameters()) == parameters


def test_states_are_read_in_order() -> None:
    """Hidden states layer by layer, in each forwards then backwards; then the cells alike."""
    branch = build("token_lstm")
    rows = branch.empty(question("token_lstm"))
    _, ends = branch.recurrent(rows)
    for state, expected in {
        "last": ends.hidden[2:],
        "both": ends.hidden[2:] + ends.cell[2:],
        "all": ends.hidden,
        "all_both": ends.hidden + ends.cell,
    }.items():
        branch.state = state
        assert torch.equal(branch(question("token_lstm")).vector, torch.cat(expected, dim=1))


@pytest.mark.parametrize("frozen", [False, True])
def test_given_vectors_are_what_an_embedding_begins_with(frozen: bool) -> None:
    vectors = torch.randn(SIZE, D, generator=torch.Generator().manual_seed(2))
    branch = WordLstm(Words(SIZE, T, vectors), frozen=frozen, hidden=4)
    tokens = TokenLstm(Tokens(D, T), hidden=4)
    tokens.load_state_dict(
        {name: value for name, value in branch.state_dict().items() if name in tokens.state_dict()}
    )
    given = question("word_lstm")
    expected = tokens(Input(vectors[given.values], given.mask)).vector
    assert torch.allclose(branch(given).vector, expected)
    trained = {name for name, _ in branch.named_parameters()}
    assert ("embedding.weight" in trained) is not frozen
    assert ("vectors" in branch.state_dict()) is frozen


def test_word_lstm_hands_the_options_of_the_lstm_on() -> None:
    assert set(options_of(TokenLstm)) < set(options_of(WordLstm))


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        (TokenLstm, {"hidden": 0}, "hidden is 0, layers 1; expected at least 1 of both"),
        (TokenLstm, {"cell": "gru", "state": "both"}, "state is 'both', and a GRU has no cell"),
        (TokenLstm, {"projection": -1}, "projection is -1; expected a width, or 0 for none"),
        (TokenLstm, {"dropout": 1.0}, "dropout is 1.0; expected 0 <= dropout < 1"),
        (AttentionPool, {"glimpses": 0}, "hidden is 512, glimpses 0; expected at least 1 of both"),
        (WordLstm, {"dim": -1}, "dim is -1; expected a width"),
        (WordLstm, {"frozen": True}, "frozen is true, and no vectors are given"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    factory: Any, options: dict[str, Any], message: str
) -> None:
    given = Words(SIZE, T) if factory is WordLstm else Tokens(D, T)
    with pytest.raises(ValueError, match=message):
        factory(given, **options)


def test_vectors_that_do_not_fit_are_refused() -> None:
    given = Words(SIZE, T, torch.zeros(SIZE, D))
    with pytest.raises(ValueError, match="dim is 9, and the given vectors have 6; leave dim out"):
        WordLstm(given, dim=9)
    with pytest.raises(ValueError, match="vectors of 3 words; expected 11, one a word"):
        WordLstm(Words(SIZE, T, torch.zeros(3, D)))


@pytest.mark.parametrize("name", QUESTIONS)
def test_low_precision_stays_near(name: str) -> None:
    module, given = build(name).float(), question(name)
    values = given.values if name == "word_lstm" else given.values.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(Input(values, given.mask))
        found.vector.float().sum().backward()
    exact = values if name == "word_lstm" else values.float()
    expected = module(Input(exact, given.mask)).vector
    assert (found.vector.float() - expected).norm() <= 0.05 * expected.norm()
