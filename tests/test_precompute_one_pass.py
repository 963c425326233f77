"""Rows at named blocks, of one tap and of several from one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from precompute.encoders.one_pass import forward_together
from precompute.encoders.taps import Block
from precompute.errors import EncoderError


def small() -> torch.nn.Sequential:
    """Convolutions, an activation that writes into its input, and a list that never runs."""
    torch.manual_seed(0)
    model = torch.nn.Sequential()
    model.add_module("one", torch.nn.Conv2d(3, 4, 3, padding=1))
    model.add_module("act", torch.nn.ReLU(inplace=True))
    model.add_module("two", torch.nn.Sequential(torch.nn.Conv2d(4, 5, 3, stride=2)))
    model.add_module("list", torch.nn.ModuleList([torch.nn.ReLU()]))
    return model


@dataclass
class At:
    """A tap of `small`: a block, or all it gives where there is none."""

    model: torch.nn.Module
    block: Block | None = None

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(inputs)
        return found

    outputs = call

    def rows(self, output: Any, inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = output.float()  # of float32 the same memory
        return found


def at(model: torch.nn.Sequential, *names: str) -> list[At]:
    return [At(model, Block(model, name, "spec")) for name in names]


PIXELS = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def test_a_block_gives_its_output_and_stops() -> None:
    model = small()
    expected = model[:1](PIXELS)
    model[1].register_forward_hook(lambda *_: pytest.fail("ran past the tap"))
    [tap] = at(model, "one")
    for _ in range(2):  # as often as wanted
        assert torch.equal(forward_together([tap], PIXELS)[0], expected)


def test_several_taps_give_what_each_gives_alone_and_end_at_the_deepest() -> None:
    model = small()[:3]
    taps = at(model, "act", "one", "two")  # in any order; the activation overwrites `one`
    alone = [forward_together([tap], PIXELS)[0].clone() for tap in taps]
    assert (alone[1] < 0).any()
    assert (alone[0] >= 0).all()
    runs: list[int] = []
    model[0].register_forward_hook(lambda *_: runs.append(1))
    together = forward_together(taps, PIXELS)
    assert len(runs) == 1
    for one, expected in zip(together, alone, strict=True):
        assert torch.equal(one, expected)
    model[2].register_forward_hook(lambda *_: pytest.fail("ran past the deepest tap"))
    assert torch.equal(forward_together(taps[:2], PIXELS)[1], alone[1])


def test_the_whole_model_and_its_blocks_in_one_run() -> None:
    model = small()[:3]
    runs: list[int] = []
    model[0].register_forward_hook(lambda *_: runs.append(1))
    blocks = at(model, "one")
    first, whole, again = forward_together([blocks[0], At(model), At(model)], PIXELS)
    assert len(runs) == 1
    assert torch.equal(whole, model(PIXELS))
    assert torch.equal(again, whole)
    assert torch.equal(first, model[0](PIXELS))


def test_a_block_behind_what_rows_are_made_of() -> None:
    """`outputs` may end before the model does, as timm's features end before its classifier."""

    @dataclass
    class Features(At):
        def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.model[0](inputs)  # type: ignore[index]
            return found

    model = small()[:3]
    [behind] = at(model, "two")
    features, rows = forward_together([Features(model), behind], PIXELS)
    assert torch.equal(features, model[0](PIXELS))
    assert torch.equal(rows, model(PIXELS))


def test_a_block_that_runs_twice_is_taken_the_first_time() -> None:
    conv = torch.nn.Conv2d(3, 3, 3, padding=1)
    model = torch.nn.Sequential(conv, conv, torch.nn.Flatten())
    taken, _ = forward_together([At(model, Block(model, "0", "spec")), At(model)], PIXELS)
    assert torch.equal(taken, conv(PIXELS))


def test_an_unknown_block_lists_the_known() -> None:
    told = r"spec: no block named 'three'; the model has: one, act, two"
    with pytest.raises(EncoderError, match=told):
        at(small(), "three")


def test_a_block_that_never_runs_is_a_clear_error() -> None:
    model = small()
    model.forward = lambda inputs: inputs  # type: ignore[method-assign]
    told = r"spec: block 'list' only holds others and never runs itself; name one of: one"
    with pytest.raises(EncoderError, match=told):
        forward_together([*at(model, "list"), At(model)], PIXELS)


def test_a_block_that_gives_no_row_an_item_is_refused() -> None:
    model = small()[:3]
    model.two = torch.nn.Flatten(0, 1)
    with pytest.raises(EncoderError, match=r"block 'two' gives \[8, 9, 9\] for 2 items"):
        forward_together(at(model, "one", "two"), PIXELS)
