"""The answers that a head chooses from, and every truth as a number.

Truths are coded in one range: 0 to C - 1 are classes of the vocabulary, C and above are answers
outside it (one number per distinct answer), -1 is an example without an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from data.answers import merge_plurals, normalise, same_when_normalised
from train.errors import TrainError
from vqa_cache.keys import nfc

OTHER = "other"
UNTYPED = ""  # the type of answers that no example of train says one of
Other = Literal["wrong", "class", "drop"]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Vocabulary:
    """Answer texts by class, most frequent first.

    Attributes:
        answers: one text per class.
        normalised: whether texts are compared in normalised form.
        other: what a truth outside means: "wrong" (never right), "class" (the class "other" is
            its truth) or "drop" (left out).
        merged: answers that are counted as another -> that one.
        types: the type of each answer by name, see `typed`; empty where nothing asks for them.
    """

    answers: tuple[str, ...]
    normalised: bool = False
    other: Other = "wrong"
    merged: Mapping[str, str] = field(default_factory=dict)
    types: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.answers)

    def form(self, text: str) -> str:
        """A text as the vocabulary has it."""
        form = _normalised(text) if self.normalised else text
        return self.merged.get(form, form)

    def truths(self, answer: npt.NDArray[np.int32], answer_texts: Sequence[str]) -> Codes:
        """Codes of majority answers [n] (-1 = none) into `answer_texts` -> truths, int64 [n]."""
        classes = {text: number for number, text in enumerate(self.answers)}
        coded = np.full(len(answer_texts) + 1, -1, dtype=np.int64)  # the last one: no answer
        for code in np.unique(answer[answer >= 0]).tolist():
            form = self.form(answer_texts[code])
            if form not in classes:
                classes[form] = classes[OTHER] if self.other == "class" else len(classes)
            coded[code] = classes[form]
        return coded[answer]


@cache
def _normalised(text: str) -> str:
    return normalise(text)


def count_answers(
    codes: npt.NDArray[np.int32], answer_texts: Sequence[str], *, normalised: bool
) -> Counter[str]:
    """How often each answer occurs among codes into `answer_texts`; negative codes are none."""
    counts = np.bincount(codes[codes >= 0], minlength=len(answer_texts))
    total: Counter[str] = Counter()
    for code in np.flatnonzero(counts).tolist():
        text = answer_texts[code]
        total[_normalised(text) if normalised else text] += int(counts[code])
    return total


def plurals_in(counts: Counter[str], kept_apart: Collection[str]) -> dict[str, str]:
    """Answers that are counted as their singular or plural -> that one (`data.answers`)."""
    # with checks of every argument's type, compiled while it is imported, it takes four seconds
    with patch("typeguard.typechecked", lambda function: function):
        import inflect

    engine = inflect.engine()

    def singular(text: str) -> str | None:
        return (engine.singular_noun(text) or None) if text.strip() else None

    return merge_plurals(counts, singular, kept_apart)


def most_frequent(
    counts: Counter[str],
    *,
    k: int,
    normalised: bool = False,
    other: Other = "wrong",
    merged: Mapping[str, str] | None = None,
    min_count: int = 1,
) -> Vocabulary:
    """The k most frequent answers; equally frequent ones in alphabetical order.

    Args:
        merged: answers that are counted as another -> that one.
        min_count: those that are less frequent do not count.

    With other = "class" the class "other" is added behind them unless it is among them. Raises
    TrainError where there is no answer to count, or none frequent enough.
    """
    if not counts:
        raise TrainError("the training part has no answer; expected labelled examples in train")
    merged = merged or {}
    joined: Counter[str] = Counter()
    for text, count in counts.items():
        joined[merged.get(text, text)] += count
    ranked = sorted(joined.items(), key=lambda item: (-item[1], item[0]))
    kept = dict.fromkeys(text for text, count in ranked[:k] if count >= min_count)
    if not kept:
        raise TrainError(
            f"answers.min_count = {min_count}: the most frequent answer of the training part, "
            f"{ranked[0][0]!r}, occurs {ranked[0][1]:,} times; expected a smaller count"
        )
    merged = {text: stands for text, stands in merged.items() if stands in kept}
    return _vocabulary(kept, normalised=normalised, other=other, merged=merged)


def read_vocabulary(
    path: Path, *, k: int, normalised: bool = False, other: Other = "wrong"
) -> Vocabulary:
    """The first k answers of a text file with one answer a line."""
    try:
        lines = nfc(path.read_text(encoding="utf-8-sig")).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainError(
            f"answers.vocabulary = {str(path)!r}: cannot be read ({error}); expected 'train' or a "
            "text file with one answer a line"
        ) from None
    if not lines:
        raise TrainError(f"answers.vocabulary = {str(path)!r}: the file has no line")
    return listed(lines, k=k, normalised=normalised, other=other)


def listed(
    answers: Iterable[str], *, k: int, normalised: bool = False, other: Other = "wrong"
) -> Vocabulary:
    """The first k of the given answers."""
    form = _normalised if normalised else str
    distinct = dict.fromkeys(form(answer) for answer in answers)
    return _vocabulary(list(distinct)[:k], normalised=normalised, other=other)


def _vocabulary(
    texts: Iterable[str],
    *,
    normalised: bool,
    other: Other,
    merged: Mapping[str, str] | None = None,
) -> Vocabulary:
    answers = list(texts)
    if other == "class" and OTHER not in answers:
        answers.append(OTHER)
    return Vocabulary(tuple(answers), normalised, other, merged or {})


def typed(
    vocabulary: Vocabulary, truth: Codes, answer_type: npt.NDArray[np.int32], names: Sequence[str]
) -> Vocabulary:
    """The vocabulary with the type of each answer: the one that most examples of train have whose
    truth it is, of equals the first by name; `UNTYPED` where no example says one.

    Args:
        truth: int64 [n], of the training part.
        answer_type: int32 [n] into `names`, -1 = none.

    Raises:
        TrainError: no example says a type.
    """
    usable = (truth >= 0) & (truth < len(vocabulary)) & (answer_type >= 0)
    if not usable.any():
        raise TrainError(
            f"none of {len(truth):,} training examples has both an answer of the vocabulary and an "
            "answer type"
        )
    order = np.argsort(names)
    place = np.argsort(order)[answer_type[usable]]
    size = len(vocabulary) * len(names)
    counts = np.bincount(truth[usable] * len(names) + place, minlength=size)
    counts = counts.reshape(len(vocabulary), len(names))
    most, seen = order[counts.argmax(axis=1)].tolist(), (counts.sum(axis=1) > 0).tolist()
    found = [names[kind] if told else UNTYPED for kind, told in zip(most, seen, strict=True)]
    return replace(vocabulary, types=tuple(found))


def spelt_apart(vocabulary: Vocabulary) -> list[str]:
    """A line where classes differ in spelling alone, and the key that joins them."""
    groups = [group for group in same_when_normalised(vocabulary.answers) if len(group) > 1]
    if not groups or vocabulary.normalised:
        return []
    named = ", ".join(map(repr, groups[0]))
    return [
        f"{sum(map(len, groups)):,} classes are {len(groups):,} answers in several spellings "
        f"({named}); answers.normalise=vqa makes one class of each"
    ]
