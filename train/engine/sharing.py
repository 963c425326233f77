"""Which inputs of a training are given as distinct rows: a function of the data and the config.

Where few of a batch's rows are distinct (an image of VQA v2 is asked 5.4 questions, easy-VQA has
107 questions in all), what a model does first with them is done once a row.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from train.config.precisions import Precision
from train.engine.model import AnswerModel
from train.engine.step import forward
from train.inputs.batch import HasItems, InputTable, gather, worth_sharing
from train.inputs.device import rng_devices
from train.inputs.order import SampleOrder
from train.inputs.resident import device_of
from train.inputs.shared_rows import watching

COUNTED = 4  # batches, of the first epoch
PROBED = 8  # examples of a model's trial, each of them twice
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 5e-2}


@dataclass(frozen=True)
class Sharing:
    """Attributes:
    names: the inputs.
    notes: a line for each input that has few distinct rows.
    """

    names: frozenset[str] = frozenset()
    notes: Sequence[str] = ()


def find_sharing(
    model: AnswerModel,
    part: HasItems,
    tables: Mapping[str, InputTable],
    order: SampleOrder,
    precision: Precision,
) -> Sharing:
    """What a training shares.

    Where steps are captured in a CUDA graph that is nothing: the number of distinct rows varies.
    By image, what is attended to is shared by definition. Else the model is tried in training mode
    on a few examples with and without: dropout before the first product, say, has it differ.
    """
    if (order.sizes and order.home.type != "cpu") or not order.steps:
        return Sharing()
    examples = [order.batch(0, number) for number in range(min(COUNTED, order.steps))]
    names: set[str] = set()
    notes = []
    for group in _groups(model, tables):
        if any(part.items[name].offsets is not None for name in group):
            continue
        share = _distinct_share(part, group[0], examples)
        if not worth_sharing(tables[group[0]], share):
            continue
        defined = order.by == "by_image" and model.attention is not None and "image" in group
        same = defined or _changes_nothing(model, part, tables, examples[0], group, precision)
        names |= set(group) if same else set()
        what = (
            "computed once each"
            if same
            else (
                "computed for every example all the same, as dropout or normalisation comes first"
            )
        )
        notes.append(f"{' and '.join(group)}: {share:.0%} of a batch's rows are distinct, {what}")
    return Sharing(frozenset(names), notes)


def _groups(model: AnswerModel, tables: Mapping[str, InputTable]) -> Iterator[list[str]]:
    """Inputs that are shared or not together: tables that an attention reads side by side."""
    images = [name for name in tables if name.startswith("image") and model.attention is not None]
    if images:
        yield images
    yield from ([name] for name in tables if name not in images)


def _distinct_share(part: HasItems, name: str, batches: Sequence[torch.Tensor]) -> float:
    rows = [part.items[name].select(examples).rows for examples in batches]
    return sum(len(own.unique()) for own in rows) / sum(map(len, rows))


def _changes_nothing(
    model: AnswerModel,
    part: HasItems,
    tables: Mapping[str, InputTable],
    examples: torch.Tensor,
    names: Sequence[str],
    precision: Precision,
) -> bool:
    """Whether a model computes the same with shared inputs, and less."""
    few = examples[:PROBED].repeat(2)
    said = []
    with torch.random.fork_rng(devices=rng_devices(device_of(tables))), torch.no_grad():
        for shared in ((), names):
            tried = copy.deepcopy(model).train()  # running statistics are its own
            torch.manual_seed(0)
            with watching() as multiplied:
                said.append(forward(tried, gather(part, tables, few, shared), precision))
    largest = float(said[0].abs().max())
    same = float((said[0] - said[1]).abs().max()) <= TOLERANCE[precision] * max(largest, 1e-6)
    return same and (bool(multiplied) or not model.is_plain(names[0]))
