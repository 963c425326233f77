"""The words of a run's questions, made of the texts that the cache keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from train.config.schema import Config
from train.inputs.parts import Joined
from train.inputs.resident import ItemRows
from train.inputs.specification import Words
from train.inputs.words import WordVocabulary, fit_words, read_vectors, seeded_vectors

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class QuestionWords:
    """Every distinct question as ids of words.

    Attributes:
        vocabulary: of the training part.
        ids, lengths: int64 [all], [questions]: the ids of all questions, joined.
        specification: what a batch of them is.
        notes: what a user should know about them, one line each.
    """

    vocabulary: WordVocabulary
    ids: Ids
    lengths: Ids
    specification: Words
    notes: Sequence[str]

    def describe(self) -> dict[str, Any]:
        """What a prediction needs of it, as plain values."""
        return {**self.vocabulary.describe(), "longest": self.specification.longest}


def read_words(
    joined: Mapping[str, Joined], config: Config
) -> tuple[dict[str, Joined], QuestionWords]:
    """The words of all questions, and the parts with the rows of theirs. The vocabulary is that of
    the training part, each example counted.

    Raises:
        TrainError: an unknown tokeniser, or a file of vectors that cannot be read.
    """
    assert config.question is not None
    chosen = config.question
    texts: list[str] = []
    begin: dict[str, int] = {}
    for name, part in joined.items():
        begin[name] = len(texts)
        texts += list(part.split.question_texts)
    train = joined["train"]
    asked = [train.split.question_texts[i] for i in train.questions.tolist()]
    vocabulary = fit_words(asked, chosen.tokeniser, min_count=chosen.min_count)
    rows = [vocabulary.ids(text) for text in texts]
    cut = sum(len(row) > chosen.longest for row in rows)
    rows = [row[: chosen.longest] for row in rows]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    notes = [f"questions: {len(vocabulary):,} words of {len(texts):,} distinct questions"]
    if cut:
        notes.append(f"questions: {cut:,} have more than {chosen.longest} words and were cut")
    if empty := int((lengths == 0).sum()):
        notes.append(f"questions: {empty:,} have no word; they are seen as the empty question")
    vectors: torch.Tensor | None = None
    if chosen.vectors is not None and chosen.vectors.startswith("random="):
        vectors = seeded_vectors(chosen.vectors, vocabulary)
        notes.append(f"questions: vectors of {chosen.vectors} are seeded, nobody trained them")
    elif chosen.vectors is not None:
        vectors, told = read_vectors(Path(chosen.vectors), vocabulary)
        notes.append(told)
    words = QuestionWords(
        vocabulary=vocabulary,
        ids=np.array([number for row in rows for number in row], dtype=np.int64),
        lengths=lengths,
        specification=Words(len(vocabulary), int(max(1, lengths.max(initial=1))), vectors),
        notes=notes,
    )
    placed = {
        name: replace(
            part,
            items={**part.items, "text": ItemRows(torch.from_numpy(part.questions + begin[name]))},
        )
        for name, part in joined.items()
    }
    return placed, words
