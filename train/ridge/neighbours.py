"""Answers by vote of the nearest training examples.

The weighted k-NN of DINO's evaluation (Caron et al. 2021, arXiv:2104.14294): cosine similarity s,
each neighbour votes for its answer with exp(s / 0.07). Of several inputs the similarity is the mean
of theirs, so each counts as much, however wide it is. A product is one of distinct rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from train.engine.ridge import Column, check_stop

NEIGHBOURS = (1, 5, 10, 20, 50, 100, 200)
TEMPERATURE = 0.07
_CHUNK = 512  # questions: their similarities to all training examples are in memory at once


class Neighbours:
    """Training examples that vote.

    Args:
        columns: of n training examples, their inputs.
        truth: int64 [n], a class each.
    """

    def __init__(self, columns: Sequence[Column], truth: torch.Tensor, classes: int) -> None:
        self._rows = [_directions(column) for column in columns]
        self._numbers = [column.number for column in columns]
        self._truth, self._classes = truth, classes

    def predictions(self, columns: Sequence[Column]) -> torch.Tensor:
        """The class of each of m examples by each number of neighbours, int64 [7, m]; where there
        are fewer training examples, all of them vote."""
        nearest = min(NEIGHBOURS[-1], len(self._truth))
        similar, chosen = self._similarities(columns).topk(nearest, dim=1)
        votes = ((similar - 1) / TEMPERATURE).exp()
        tally = votes.new_zeros((len(votes), self._classes))
        found, before = [], 0
        for count in NEIGHBOURS:
            more = slice(before, count)
            tally.scatter_add_(1, self._truth[chosen[:, more]], votes[:, more])
            found.append(tally.argmax(dim=1))
            before = count
        return torch.stack(found)

    def _similarities(self, columns: Sequence[Column]) -> torch.Tensor:
        """[m, n], the mean over inputs."""
        m = len(columns[0].number)
        whole = torch.zeros((m, len(self._truth)))
        for column, rows, numbers in zip(columns, self._rows, self._numbers, strict=True):
            distinct = _directions(column) @ rows.T
            whole += distinct.index_select(1, numbers)[column.number]
        return whole / len(columns)


def _directions(column: Column) -> torch.Tensor:
    """Distinct rows of length 1, float32 [k, width]."""
    rows = column.rows(torch.arange(column.distinct)).float()
    return functional.normalize(rows, dim=1)


def right_by_neighbours(
    neighbours: Neighbours,
    columns_of: Callable[[torch.Tensor], Sequence[Column]],
    truth: torch.Tensor,
    examples: torch.Tensor,
    stopping: Callable[[], bool],
) -> tuple[float, ...]:
    """Accuracy on `examples` by each number of neighbours. Raises Stopped."""
    right = torch.zeros(len(NEIGHBOURS), dtype=torch.int64)
    for chunk in examples.split(_CHUNK):
        check_stop(stopping)
        right += (neighbours.predictions(columns_of(chunk)) == truth[chunk]).sum(dim=1)
    return tuple((right.double() / len(examples)).tolist())
