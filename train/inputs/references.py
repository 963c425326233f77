"""What the annotators answered, as numbers instead of texts, for VQA accuracy of many questions.

Each distinct text is cleaned and normalised once (`data.answers`, flavour official-2021). Where
the references of a question agree they are compared as cleaned, otherwise as normalised; here both
forms become integers, so that an evaluation is one comparison of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.answers import clean, normalise

ANNOTATORS = 10


@dataclass(frozen=True)
class References:
    """What predictions for n questions are compared with.

    Attributes:
        references: int32 [n, 10], the form in which each reference is compared.
        unanimous: bool [n], whether a question's references agree.
        cleaned, normalised: int32 [C], each class's text in both forms.
    """

    references: npt.NDArray[np.int32]
    unanimous: npt.NDArray[np.bool_]
    cleaned: npt.NDArray[np.int32]
    normalised: npt.NDArray[np.int32]

    def matches(self, predicted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Of each question's references, how many equal the predicted class [n] -> [n]."""
        form = np.where(self.unanimous, self.cleaned[predicted], self.normalised[predicted])
        matching: npt.NDArray[np.int64] = (self.references == form[:, None]).sum(axis=1)
        return matching


def build_references(
    answers: npt.NDArray[np.int32], answer_texts: Sequence[str], class_texts: Sequence[str]
) -> References:
    """Codes of the annotators' answers [n, 10] into `answer_texts` as References."""
    numbers: dict[tuple[str, str], int] = {}

    def number(form: str, text: str) -> int:
        return numbers.setdefault((form, text), len(numbers))

    def both(texts: Sequence[str], wanted: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int32]]:
        forms = [np.full(len(texts), -1, dtype=np.int32) for _ in range(2)]
        for code in wanted.tolist():
            text = clean(texts[code])
            forms[0][code] = number("cleaned", text)
            forms[1][code] = number("normalised", normalise(text))
        return forms

    cleaned, normalised = both(answer_texts, np.unique(answers).astype(np.int64))
    raw = cleaned[answers]
    unanimous = (raw == raw[:, :1]).all(axis=1)
    references = np.where(unanimous[:, None], raw, normalised[answers])
    classes = both(class_texts, np.arange(len(class_texts)))
    return References(references, unanimous, classes[0], classes[1])
