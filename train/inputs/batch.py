"""From the numbers of a batch's examples to what a model is given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import torch

from train.inputs.positions import PositionTable
from train.inputs.resident import ItemRows, ResidentTable, beside, device_of
from train.inputs.shared_rows import distinct_rows
from train.inputs.specification import Batch, Input, Vector

WORTH = 128  # multiplications saved for each number of a product, beyond what gathering it costs
FEWER = 0.9  # share of distinct rows, for what reads positions or words
InputTable = ResidentTable | PositionTable


class Targets(Protocol):
    """What a loss compares with, of every example: a label, or a number for each answer."""

    @property
    def device(self) -> torch.device:
        """Where they are."""

    def to(self, device: torch.device, /) -> Targets:
        """The same there."""

    def __getitem__(self, examples: torch.Tensor, /) -> torch.Tensor:
        """Those of some examples, int64 [b]."""


class HasItems(Protocol):
    """What `gather` reads of a part."""

    @property
    def items(self) -> Mapping[str, ItemRows]: ...


def gather(
    part: HasItems,
    tables: Mapping[str, InputTable],
    examples: torch.Tensor,
    shared: Collection[str] = (),
) -> dict[str, Input]:
    """A batch of inputs on the tables' device.

    Vectors [b, d] lie side by side in one matrix, so that joining them copies nothing.

    Args:
        examples: int64 [b].
        shared: inputs whose distinct rows are gathered once each; an example has one row of them.
    """
    items = {name: part.items[name].select(examples) for name in tables}
    beside_each_other = [
        name
        for name, table in tables.items()
        if isinstance(table.specification, Vector) and name not in shared
    ]
    found = _vectors(items, tables, beside_each_other)
    for name, table in tables.items():
        if name in shared:
            rows, index = distinct_rows(items[name].rows)
            found[name] = table.input(ItemRows(rows), index)
        elif name not in found:
            found[name] = table.input(items[name], None)
    return {name: found[name] for name in tables}


def worth_sharing(table: InputTable, share: float) -> bool:
    """Whether a share of distinct rows is small enough for them to be computed apart."""
    if isinstance(table.specification, Vector):
        return (1 - share) * table.width >= WORTH
    return share <= FEWER


def _vectors(
    items: Mapping[str, ItemRows], tables: Mapping[str, InputTable], names: list[str]
) -> dict[str, Input]:
    if not names:
        return {}
    chosen = {name: table for name in names if isinstance(table := tables[name], ResidentTable)}
    widths = [table.width for table in chosen.values()]
    first = next(iter(chosen.values()))
    shape = (len(items[names[0]]), sum(widths))
    joined = torch.empty(shape, dtype=first.compute_type, device=first.device)
    return {
        name: Input(table.gather(items[name], out=columns))
        for (name, table), columns in zip(chosen.items(), joined.split(widths, 1), strict=True)
    }


def batches_of(
    part: HasItems,
    truth: Targets,
    tables: Mapping[str, InputTable],
    shared: Collection[str] = (),
) -> Callable[[torch.Tensor], Batch]:
    """From the numbers of examples, int64 [b], to their inputs and targets on the tables'
    device."""
    targets = truth.to(device_of(tables))

    def batch(examples: torch.Tensor) -> Batch:
        inputs = gather(part, tables, examples, shared)
        return inputs, targets[beside(targets, examples)]

    return batch
