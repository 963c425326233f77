"""Targets of all annotators' answers, instead of one label an example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from train.inputs.parts import Part
from train.inputs.vocabulary import Vocabulary

Kind = Literal["scores", "shares"]
_FULL = 3  # annotators who make an answer fully right


@dataclass(frozen=True)
class SoftTargets:
    """A number for each answer of n examples, kept as those that are not 0.

    Attributes:
        classes: int64 [n, m], each class of a row once; 0 where its value is 0.
        values: float32 [n, m].
        answers: how many classes there are.
    """

    classes: torch.Tensor
    values: torch.Tensor
    answers: int

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.values.device

    def to(self, device: torch.device) -> SoftTargets:
        """The same there."""
        return SoftTargets(self.classes.to(device), self.values.to(device), self.answers)

    def __getitem__(self, examples: torch.Tensor) -> torch.Tensor:
        """Of examples int64 [b]: float32 [b, answers]."""
        values = self.values[examples]
        dense = values.new_zeros((len(values), self.answers))
        return dense.scatter_add_(1, self.classes[examples], values)


def soft_targets(part: Part, vocabulary: Vocabulary, kind: Kind) -> SoftTargets:
    """Of every example of a part.

    "scores" are those of VQA accuracy: an answer of at least 3 annotators has 1, of fewer its
    number over 3 (or over all, where there are fewer than 3). "shares" are the numbers of
    annotators over all whose answer is in the vocabulary: they add up to 1, or are all 0.
    """
    split, kept = part.joined.split, part.joined.kept
    offsets = split.answers_offsets
    counts = np.diff(offsets)[kept]
    owner = np.repeat(np.arange(len(kept)), counts)
    first = np.repeat(offsets[:-1][kept] - (np.cumsum(counts) - counts), counts)
    codes = split.answers[np.arange(len(owner)) + first]
    answer = vocabulary.truths(codes, split.answer_texts)
    inside = (answer >= 0) & (answer < len(vocabulary))
    pairs, often = np.unique(owner[inside] * len(vocabulary) + answer[inside], return_counts=True)
    row, column = np.divmod(pairs, len(vocabulary))
    if kind == "scores":
        values = np.minimum(often / np.minimum(_FULL, counts[row]), 1.0)
    else:
        values = often / np.bincount(row, weights=often, minlength=len(kept))[row]
    return _padded(row, column, values, len(kept), len(vocabulary))


def annotators_of(part: Part, vocabulary: Vocabulary) -> SoftTargets | None:
    """The shares of a part's annotators; None where no question has several."""
    if not (np.diff(part.joined.split.answers_offsets)[part.joined.kept] > 1).any():
        return None
    return soft_targets(part, vocabulary, "shares")


def _padded(
    row: npt.NDArray[np.int64],
    column: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
    n: int,
    answers: int,
) -> SoftTargets:
    """Sorted triples as rows of one length."""
    counts = np.bincount(row, minlength=n)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (n, max(1, int(counts.max(initial=1))))
    classes, shares = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
    classes[row, place], shares[row, place] = column, values
    return SoftTargets(torch.from_numpy(classes), torch.from_numpy(shares), answers)
