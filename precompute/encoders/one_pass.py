"""Rows at several taps of one model from one forward pass, which ends at the deepest of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch

from precompute.encoders.taps import Block


class Tapped(Protocol):
    """A model with a tap, as an encoder is one.

    Attributes:
        block: where rows are taken; None takes them from what the whole model gives.
    """

    block: Block | None

    def call(self, inputs: Any) -> Any:
        """The model itself on a batch, every block included."""

    def outputs(self, inputs: Any) -> Any:
        """What rows are made of where there is no block."""

    def rows(self, output: Any, inputs: Any) -> torch.Tensor:
        """float32 [items, *row_shape] from what the block, or the whole model, gave for a batch."""


class _AllTaken(Exception):
    """Ends a forward pass: what lies behind the deepest tap is never computed."""


def forward_together(encoders: Sequence[Tapped], inputs: Any) -> list[torch.Tensor]:
    """Rows of one batch from each of some encoders of the same model, in their order.

    They are those that each encoder alone gives, bit for bit: the same operations run up to its
    tap. A block that runs several times is taken the first time.

    Raises:
        EncoderError: a block gives no rows, or never runs.
    """
    taken: dict[int, torch.Tensor] = {}
    blocks = {place: one.block for place, one in enumerate(encoders) if one.block is not None}
    whole = [place for place in range(len(encoders)) if place not in blocks]

    def take(place: int, output: Any) -> None:
        if place in taken:
            return
        rows = encoders[place].rows(blocks[place].checked(output, items_of(inputs)), inputs)
        last = len(taken) + 1 == len(encoders)
        taken[place] = rows if last else rows.clone()  # a later block may write where it wrote
        if last:
            raise _AllTaken

    with ExitStack() as hooks:
        for place, block in blocks.items():
            hooks.enter_context(_listening(block.module, take, place))
        try:
            if whole:
                output = encoders[whole[0]].outputs(inputs)
                taken.update({place: encoders[place].rows(output, inputs) for place in whole})
            if len(taken) < len(encoders):
                encoders[0].call(inputs)
        except _AllTaken:
            pass
    for place, block in blocks.items():
        if place not in taken:
            raise block.never_ran()
    return [taken[place] for place in range(len(encoders))]


@contextmanager
def _listening(module: torch.nn.Module, take: Any, place: int) -> Iterator[None]:
    """Hand what a module gives to `take`."""
    handle = module.register_forward_hook(lambda _module, _inputs, output: take(place, output))
    try:
        yield
    finally:
        handle.remove()


def items_of(inputs: Any) -> int:
    """Items of a batch: a tensor, or a dictionary whose first value is one."""
    return len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)
