"""Each example of a part once, in an order in which little is computed twice.

Examples that have a row of one input in common follow each other, and what depends on that row is
computed once. Rows of the others come back all the time: their first products are kept meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from train.inputs.batch import InputTable, gather, worth_sharing
from train.inputs.large.blocks import in_row_order
from train.inputs.order import along
from train.inputs.parts import Part
from train.inputs.resident import ItemRows, ResidentTable
from train.inputs.shared_rows import Change, Columns, SharedRows, distinct_rows, product
from train.inputs.specification import Input, Vector

HELD_BYTES = 512 << 20  # of products that a pass keeps
_CHUNK = 4096  # rows
Tables = Mapping[str, InputTable]


def single_pass(
    part: Part, tables: Tables, size: int, examples: torch.Tensor
) -> Iterator[tuple[torch.Tensor, dict[str, Input]]]:
    """Examples of a part, int64 [n], `size` at a time, each with its inputs.

    The model must not change meanwhile, as products are kept. Whether rows are in memory or in
    files changes neither the order nor a number.
    """
    repeated = _repeated(part, tables, examples)
    lead = _lead(part, tables, repeated)
    together = [name for name in repeated if name == lead or not _is_vector(tables[name])]
    held = {
        name: HeldProducts(table, part.items[name].select(examples).rows)
        for name, table in tables.items()
        if name in repeated and name not in together and isinstance(table, ResidentTable)
    }
    rest = {name: table for name, table in tables.items() if name not in held}
    for span in _ordered(part, tables, size, examples, lead):
        inputs = gather(part, rest, span, together) if rest else {}
        for name, products in held.items():
            inputs[name] = Input(products.of(part.items[name].select(span).rows))
        yield span, {name: inputs[name] for name in tables}


def _is_vector(table: InputTable) -> bool:
    return isinstance(table.specification, Vector)


def _repeated(part: Part, tables: Tables, examples: torch.Tensor) -> dict[str, int]:
    """Inputs of which many examples have the same row, with the number of distinct rows."""
    found = {}
    for name, table in tables.items():
        items = part.items[name]
        if items.offsets is None and len(examples):
            count = len(items.select(examples).rows.unique())
            if worth_sharing(table, count / len(examples)):
                found[name] = count
    return found


def _lead(part: Part, tables: Tables, repeated: Mapping[str, int]) -> str | None:
    """The input along whose rows the pass goes: one that is large; otherwise images that something
    looks at, what is read otherwise, or the vectors of which most are distinct."""
    large = along(part, tables)
    if large is not None:
        return large.name
    read = [name for name in repeated if not _is_vector(tables[name])]
    images = [name for name in read if name.startswith("image")]
    chosen = images or read or sorted(repeated, key=lambda name: repeated[name])[-1:]
    return chosen[0] if chosen else None


def _ordered(
    part: Part, tables: Tables, size: int, examples: torch.Tensor, lead: str | None
) -> Iterator[torch.Tensor]:
    if not len(examples):
        return
    if lead is None:
        yield from examples.split(size)
        return
    rows = part.items[lead].rows.cpu()[examples]
    ordered = examples[rows.argsort(stable=True)]
    large = along(part, tables)
    windows = None if large is None else in_row_order(large.blocks, rows)
    for span in ordered.split(size):
        if large is not None and windows is not None:
            large.table.expect(windows)
        yield span


class HeldProducts:
    """The products of all rows that examples have of a table, kept for each parameter they are
    multiplied with, as far as HELD_BYTES suffice."""

    def __init__(self, table: ResidentTable, rows: torch.Tensor) -> None:
        """Args: rows: of the table, int64 [n], of the examples."""
        self.table = table
        self.distinct = rows.unique()
        self._products: dict[tuple[int, ...], tuple[torch.Tensor, ...]] = {}
        self._left = HELD_BYTES

    def of(self, rows: torch.Tensor) -> SharedRows:
        """The rows of a batch, int64 [b]."""
        return SharedRows([HeldColumns(self, rows)], rows.to(self.table.device))

    def with_weight(self, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor | None:
        """Products [u, out] of the distinct rows; None where they cannot be kept, or are of a
        weight that is no parameter: it may be another one each time."""
        owner = weight if weight._base is None else weight._base
        if torch.is_grad_enabled() or not isinstance(owner, nn.Parameter):
            return None
        key = (weight.data_ptr(), *weight.shape, *weight.stride(), 0 if bias is None else 1)
        if key not in self._products:
            needed = len(self.distinct) * len(weight) * self.table.compute_type.itemsize
            if needed > self._left:
                return None
            self._left -= needed
            made = torch.cat(
                [
                    product(self.table.gather(ItemRows(rows)), weight, bias)
                    for rows in self.distinct.split(_CHUNK)
                ]
            )
            self._products[key] = made, weight  # a weight that is kept keeps its address
        return self._products[key][0]


class HeldColumns(Columns):
    """The rows of a batch, int64 [b], which are gathered where their products are not enough."""

    def __init__(self, held: HeldProducts, numbers: torch.Tensor) -> None:
        self.held, self.numbers = held, numbers
        self.width, self.dtype = held.table.width, held.table.compute_type

    def times(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Columns:
        products = self.held.with_weight(weight, bias)
        if products is None:
            return self._gathered().times(weight, bias)
        place = torch.searchsorted(self.held.distinct, self.numbers)
        return Columns(products.index_select(0, place.to(products.device)))

    def each(self, change: Change) -> Columns:
        return self._gathered().each(change)

    def whole(self) -> torch.Tensor:
        return self.held.table.gather(ItemRows(self.numbers))

    def _gathered(self) -> Columns:
        rows, index = distinct_rows(self.numbers)
        return Columns(self.held.table.gather(ItemRows(rows)), index.to(self.held.table.device))
