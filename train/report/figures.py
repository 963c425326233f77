"""Figures of judged questions, as tables and curves. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from train.report.judged import Flags, Judged
from train.report.table import Column, Table

Floats = npt.NDArray[np.float64]
CONFUSIONS = 200  # pairs in the table
HEATED = 12  # answers in the picture of confusions
FEW = 30  # questions of a type below which it is not called the best or the worst
NAMED = 3  # best and worst types


def by_type(judged: Judged, types: Sequence[str], name: str, only: Flags | None = None) -> Table:
    """n, top-1 and top-5 of each type that occurs, the most frequent first.

    Args:
        types: of each question; empty ones are left out.
        only: bool [n], the questions that count; None is all.
    """
    kept = np.array([bool(one) for one in types]) & (True if only is None else only)
    names, code = np.unique(np.array(types, dtype=object)[kept].astype(str), return_inverse=True)
    count = np.bincount(code, minlength=len(names))
    top1 = _means(judged.right[kept], code, count)
    in_top5 = judged.in_top5
    top5 = [None] * len(names) if in_top5 is None else _means(in_top5[kept], code, count)
    rows = sorted(zip(names.tolist(), count.tolist(), top1, top5, strict=True), key=lambda r: -r[1])
    columns = [Column(name), Column("n", "count"), Column("top-1", "bar"), Column("top-5", "bar")]
    return Table(columns, rows)


def _means(flags: Flags, code: npt.NDArray[np.int64], count: npt.NDArray[np.int64]) -> list[float]:
    values: list[float] = (np.bincount(code, weights=flags, minlength=len(count)) / count).tolist()
    return values


def best_and_worst(types: Table) -> tuple[list[str], list[str]]:
    """Names of the types with the highest and the lowest top-1, of those with enough questions."""
    enough = sorted((row for row in types.rows if row[1] >= FEW), key=lambda row: -row[2])
    if len(enough) < 2:
        return [], []
    count = min(NAMED, len(enough) // 2)
    told = [f"{name} ({top1:.3f})" for name, _, top1, _ in enough]
    return told[:count], told[::-1][:count]


def by_answer(judged: Judged) -> Table:
    """Precision, recall and F1 of each answer that is a truth or was predicted."""
    truth, predicted = Counter(judged.truths), Counter(judged.predicted)
    right = Counter(t for t, hit in zip(judged.truths, judged.right, strict=True) if hit)
    rows = [
        (
            answer,
            truth[answer],
            predicted[answer],
            right[answer] / predicted[answer] if predicted[answer] else None,
            right[answer] / truth[answer] if truth[answer] else None,
            2 * right[answer] / (truth[answer] + predicted[answer]),
        )
        for answer in sorted(truth | predicted, key=lambda a: (-truth[a], a))
    ]
    columns = [
        Column("answer"),
        Column("support", "count"),
        Column("predicted", "count"),
        Column("precision", "bar"),
        Column("recall", "bar"),
        Column("F1", "bar"),
    ]
    return Table(columns, rows)


def confusions(judged: Judged) -> Table:
    """The most frequent mistakes: truth, answer given, how often, of how many of that truth."""
    support = Counter(judged.truths)
    wrong = Counter(
        (truth, given)
        for truth, given, hit in zip(judged.truths, judged.predicted, judged.right, strict=True)
        if not hit
    )
    rows = [
        (truth, given, count, count / support[truth])
        for (truth, given), count in sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
    ]
    columns = [
        Column("truth"),
        Column("answered"),
        Column("times", "count"),
        Column("share of the truth", "bar"),
    ]
    return Table(columns, rows[:CONFUSIONS])


@dataclass(frozen=True)
class Heat:
    """Shares [a, a + 1] of each truth's questions that were given each answer; the last column is
    every other answer."""

    answers: Sequence[str]
    shares: Floats


def heat(judged: Judged) -> Heat:
    """Confusions among the most frequent truths."""
    answers = [answer for answer, _ in Counter(judged.truths).most_common(HEATED)]
    place = {answer: number for number, answer in enumerate(answers)}
    counts = np.zeros((len(answers), len(answers) + 1))
    for truth, given in zip(judged.truths, judged.predicted, strict=True):
        if truth in place:
            counts[place[truth], place.get(given, len(answers))] += 1
    return Heat(answers, counts / counts.sum(axis=1, keepdims=True))
