"""Accuracy of frequent and of rare answers, as GQA-OOD has it (Kervadec et al. 2021, arXiv
2006.05121), for any dataset.

Questions are taken by type (all together where there are no types; GQA-OOD has finer groups), of
which those count whose answers are unevenly frequent: with an entropy below 0.9 of the highest. An
answer of a type is in the tail where it occurs at most 1.2 times as often as the mean of the
answers that occur, in the evaluated part itself; otherwise in the head.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from train.metrics.classification import Evaluated, NotComputable

ENTROPY, ALPHA = 0.9, 1.2
Flags = npt.NDArray[np.bool_]


def head_and_tail(
    answer: npt.NDArray[np.int64], group: npt.NDArray[np.int32]
) -> tuple[Flags, Flags]:
    """Which of n examples are of the head, and of the tail, bool [n] each.

    Args:
        answer, group: [n], a number each.
    """
    head, tail = np.zeros((2, len(answer)), dtype=bool)
    for one in np.unique(group):
        places = np.flatnonzero(group == one)
        _, number, count = np.unique(answer[places], return_inverse=True, return_counts=True)
        share = count / len(places)
        if len(count) < 2 or -(share * np.log(share)).sum() >= ENTROPY * np.log(len(count)):
            continue
        rare = (count <= ALPHA * count.mean())[number]
        head[places], tail[places] = ~rare, rare
    return head, tail


def accuracy_head(evaluated: Evaluated) -> float:
    """Accuracy of the examples whose answer is frequent among those of its question type."""
    return _accuracy(evaluated, 0)


def accuracy_tail(evaluated: Evaluated) -> float:
    """Accuracy of the examples whose answer is rare among those of its question type."""
    return _accuracy(evaluated, 1)


def _accuracy(evaluated: Evaluated, which: int) -> float:
    group = evaluated.question_type
    if group is None:
        group = np.zeros(len(evaluated.truth), dtype=np.int32)
    chosen = head_and_tail(evaluated.truth, group)[which]
    if not chosen.any():
        raise NotComputable("no question type has both frequent and rare answers")
    return float(evaluated.correct[chosen].mean())
