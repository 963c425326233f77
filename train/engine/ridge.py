"""Ridge regression on one-hot classes, for a whole path of penalties.

W = (X'X + lambda I)^-1 X'Y with X and Y centred, so that the bias is not shrunk (Hoerl and Kennard
1970). One eigendecomposition of X'X = Q E Q' gives every lambda: W = Q (E + lambda I)^-1 Q'X'Y.

Many examples share an image or a question, so X'X is made of distinct rows: a row that c examples
have counts c times, and beside another column it meets the sum of what these examples have there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from train.inputs.batch import InputTable
from train.inputs.parts import Part
from train.inputs.resident import ItemRows, ResidentTable
from vqa_cache.system.signals import Stopped

PATH = tuple(10.0 ** (exponent / 2) for exponent in range(-12, 5))  # of the mean eigenvalue
CHUNK = 4096  # rows


@dataclass(frozen=True)
class Column:
    """One input of n examples.

    Attributes:
        rows: numbers int64 [k] -> those of its distinct rows, [k, width].
        distinct: how many there are.
        number: int64 [n], which of them each example has.
    """

    rows: Callable[[torch.Tensor], torch.Tensor]
    distinct: int
    width: int
    number: torch.Tensor

    def exact(self, numbers: torch.Tensor) -> torch.Tensor:
        """Distinct rows, float64 [k, width]."""
        return self.rows(numbers).double()


@dataclass(frozen=True)
class Moments:
    """Sums over n examples of X [n, width] and one-hot Y [n, classes], float64.

    Attributes:
        mean_x, mean_y: [width], [classes].
        gram: X'X of the centred X, [width, width].
        cross: X'Y, both centred, [width, classes].
    """

    n: int
    mean_x: torch.Tensor
    mean_y: torch.Tensor
    gram: torch.Tensor
    cross: torch.Tensor


def moments(
    columns: Sequence[Column],
    truth: torch.Tensor,
    classes: int,
    *,
    stopping: Callable[[], bool] = lambda: False,
) -> Moments:
    """The sums of examples whose inputs are columns side by side, and whose classes are `truth`,
    int64 [n], one at least.

    Raises Stopped when `stopping`, asked between chunks, is true.
    """
    n = len(truth)
    gram = _gram(columns, stopping)
    cross = torch.cat([_class_sums(column, truth, classes, stopping) for column in columns], dim=1)
    mean_x, mean_y = cross.sum(dim=0) / n, torch.bincount(truth, minlength=classes).double() / n
    gram -= n * torch.outer(mean_x, mean_x)
    return Moments(n, mean_x, mean_y, gram, cross.T - n * torch.outer(mean_x, mean_y))


def _gram(columns: Sequence[Column], stopping: Callable[[], bool]) -> torch.Tensor:
    """X'X, [width, width], by blocks of columns."""
    widths = [column.width for column in columns]
    gram = torch.zeros((sum(widths), sum(widths)), dtype=torch.float64)
    blocks = [row.split(widths, dim=1) for row in gram.split(widths)]
    for i, column in enumerate(columns):
        _add_product(blocks[i][i], column, column, stopping)
        for j in range(i):
            _add_product(blocks[j][i], columns[j], column, stopping)
            blocks[i][j].copy_(blocks[j][i].T)
    return gram


def _add_product(
    out: torch.Tensor, column: Column, other: Column, stopping: Callable[[], bool]
) -> None:
    """Add X'Z of two columns to `out`, float64 [width, other width]."""
    counts = torch.bincount(column.number, minlength=column.distinct)
    order, ends = column.number.argsort(), counts.cumsum(0)
    for numbers in torch.arange(column.distinct).split(CHUNK):
        check_stop(stopping)
        rows = column.exact(numbers)
        if other is column:
            beside = rows * counts[numbers, None]
        else:
            beside = torch.zeros((len(numbers), other.width), dtype=torch.float64)
            first = numbers[0]
            examples = order[ends[first] - counts[first] : ends[numbers[-1]]]
            for some in examples.split(CHUNK):
                beside.index_add_(0, column.number[some] - first, other.exact(other.number[some]))
        out.addmm_(rows.T, beside)


def _class_sums(
    column: Column, truth: torch.Tensor, classes: int, stopping: Callable[[], bool]
) -> torch.Tensor:
    """Y'X, [classes, width]."""
    sums = torch.zeros((classes, column.width), dtype=torch.float64)
    for examples in torch.arange(len(truth)).split(CHUNK):
        check_stop(stopping)
        sums.index_add_(0, truth[examples], column.exact(column.number[examples]))
    return sums


def check_stop(stopping: Callable[[], bool]) -> None:
    """Raises Stopped where a signal came."""
    if stopping():
        raise Stopped("stopped by a signal")


@dataclass(frozen=True)
class Reader:
    """How rows of one input become columns.

    Attributes:
        rows: items -> numbers [k, width] on the CPU.
    """

    rows: Callable[[ItemRows], torch.Tensor]
    width: int


def readers_of(tables: Mapping[str, InputTable]) -> dict[str, Reader]:
    """Rows as they are held."""
    found = {}
    for modality, table in tables.items():
        assert isinstance(table, ResidentTable)  # a ragged table is refused
        found[modality] = Reader(table.gather, table.width)
    return found


def columns_of(part: Part, readers: Mapping[str, Reader], examples: torch.Tensor) -> list[Column]:
    """The inputs of examples int64 [n], each table's rows once."""
    columns = []
    for modality, reader in readers.items():
        items = part.items[modality].select(examples)
        if items.offsets is None:
            distinct, number = items.rows.unique(return_inverse=True)
            items = replace(items, rows=distinct)
        else:  # the mean of several rows: examples are taken as distinct
            number = torch.arange(len(items))
        rows = partial(_some_rows, reader, items)
        columns.append(Column(rows, len(items), reader.width, number))
    return columns


def _some_rows(reader: Reader, items: ItemRows, numbers: torch.Tensor) -> torch.Tensor:
    return reader.rows(items.select(numbers))


class RidgePath:
    """The solutions of every lambda, from one eigendecomposition.

    Attributes:
        lambdas: `PATH` times the mean eigenvalue of X'X.
    """

    def __init__(self, sums: Moments) -> None:
        self._sums = sums
        values, self._basis = torch.linalg.eigh(sums.gram)
        self._values = values.clamp_min(0)
        self._projected = self._basis.T @ sums.cross
        scale = float(self._values.mean()) or 1.0
        self.lambdas = [share * scale for share in PATH]

    def weights(self, strength: float) -> tuple[torch.Tensor, torch.Tensor]:
        """W [width, classes] and bias [classes] of one lambda, float64."""
        shrunk = self._projected / (self._values + strength)[:, None]
        weights = self._basis @ shrunk
        return weights, self._sums.mean_y - self._sums.mean_x @ weights


class Inputs:
    """Examples to be answered; each distinct row is multiplied once."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._widths = [column.width for column in columns]
        self._rows = [column.rows(torch.arange(column.distinct)) for column in columns]
        self._numbers = [column.number for column in columns]

    def predictions(self, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """The class of each example, int64 [n], by W [width, classes] and bias [classes], in whose
        type is computed."""
        own = weights.split(self._widths)
        logits = bias.expand(len(self._numbers[0]), -1)
        for rows, part, number in zip(self._rows, own, self._numbers, strict=True):
            logits = logits + (rows.to(part.dtype) @ part)[number]
        return logits.argmax(dim=1)
