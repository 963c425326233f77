"""What a run answered beside what is true, question by question."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from train.errors import TrainError
from train.loop.layout import TOP_ANSWERS
from train.metrics.classification import TOP
from train.runs.answered import Answered
from vqa_cache.examples import Split

YES_NO = frozenset({"yes", "no"})
Flags = npt.NDArray[np.bool_]
Probable = Sequence[tuple[str, float]]  # answers with their probabilities, falling


@dataclass(frozen=True)
class Judged:
    """The n questions of a split that a run's accuracy counts.

    Attributes:
        num_answers: size of the run's vocabulary.
        images: content key of a question's first image, hex; empty where it is missing.
        types, answer_types: by question; empty strings where the data set has none.
        types_are: what `types` are.
        truths: the majority answer as the run's vocabulary has it.
        examples, rows: where the cache has the questions, int64 [n].
        top: the most probable answers, at most five.
        right, near: whether the first of them is the truth; whether a later one is.
    """

    split: str
    num_answers: int
    ids: Sequence[int | str]
    questions: Sequence[str]
    images: Sequence[str]
    types: Sequence[str]
    answer_types: Sequence[str]
    types_are: str
    truths: Sequence[str]
    examples: Split
    rows: npt.NDArray[np.int64]
    top: Sequence[Probable]
    right: Flags
    near: Flags

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def predicted(self) -> list[str]:
        """The most probable answer of each question."""
        return [answers[0][0] for answers in self.top]

    @property
    def confidence(self) -> npt.NDArray[np.float64]:
        """Its probability, [n]."""
        return np.array([answers[0][1] for answers in self.top], dtype=np.float64)

    @property
    def in_top5(self) -> Flags | None:
        """Whether the truth is among the five; None where five are all answers."""
        return self.right | self.near if self.num_answers > TOP else None

    @property
    def yes_no(self) -> Flags:
        """Questions whose answer is yes or no, bool [n]."""
        return np.array([truth.lower() in YES_NO for truth in self.truths], dtype=np.bool_)

    def annotators(self, place: int) -> dict[str, int]:
        """How often each answer was given to a question, the most frequent first."""
        row = int(self.rows[place])
        first, last = self.examples.answers_offsets[row : row + 2].tolist()
        counts = Counter(self.examples.answers[first:last].tolist())
        return {self.examples.answer_texts[code]: n for code, n in counts.most_common()}


def judge(run: Path, result: Mapping[str, Any], split: str, cache: Path) -> Judged:
    """A run's predictions of a split beside the cache's truths.

    Raises:
        TrainError, CacheError: the run kept no predictions of it, or the cache is not the one that
            it was trained on.
    """
    answered = Answered(cache, run, result, split)
    top = _read_top(run, split)
    examples, chosen = answered.examples, np.flatnonzero(answered.judged)
    rows = answered.rows[chosen]
    texts = [_truth_text(answered, code, row) for code, row in
             zip(answered.truth[chosen].tolist(), rows.tolist(), strict=True)]  # fmt: skip
    found = [top[place] for place in chosen.tolist()]
    pairs = list(zip(found, texts, strict=True))
    questions = [examples.question_texts[i] for i in examples.question_positions[rows].tolist()]
    types, types_are = _types(examples, rows, questions)
    return Judged(
        split=split,
        num_answers=len(answered.vocabulary),
        ids=[answered.ids[place] for place in chosen.tolist()],
        questions=questions,
        images=[
            "" if place < 0 else examples.image_keys[place].tobytes().hex()
            for place in examples.image_positions[rows].tolist()
        ],
        types=types,
        answer_types=_named(examples.answer_type[rows], examples.answer_types),
        types_are=types_are,
        truths=texts,
        examples=examples,
        rows=rows,
        top=found,
        right=answered.right[chosen],
        near=np.array([truth in [a for a, _ in own[1:]] for own, truth in pairs], dtype=np.bool_),
    )


def _truth_text(answered: Answered, code: int, row: int) -> str:
    vocabulary, examples = answered.vocabulary, answered.examples
    if code < len(vocabulary):
        return vocabulary.answers[code]
    return vocabulary.form(examples.answer_texts[examples.answer[row]])


def _types(
    examples: Split, rows: npt.NDArray[np.int64], questions: Sequence[str]
) -> tuple[list[str], str]:
    """A type for each question; where the data set names none, the first words stand for it."""
    named = _named(examples.question_type[rows], examples.question_types)
    if any(named):
        return named, "question type"
    return [" ".join(text.lower().split()[:2]) for text in questions], "first two words"


def _named(codes: npt.NDArray[np.int32], names: Sequence[str]) -> list[str]:
    return [names[code] if code >= 0 else "" for code in codes.tolist()]


def _read_top(run: Path, split: str) -> list[Probable]:
    """The most probable answers of every question, in the order of the file."""
    path = run / TOP_ANSWERS.format(split=split)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise TrainError(
            f"{run.name}: no {path.name}, the most probable answers; an earlier version trained "
            "it: train it again with --new"
        ) from None
    pairs = [(f"answer_{n}", f"probability_{n}") for n in range(1, TOP + 1)]
    return [[(row[a], float(row[p])) for a, p in pairs if row[p]] for row in rows]
