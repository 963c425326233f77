"""What the annotators answered, as numbers instead of texts, for VQA accuracy of many questions.

Each distinct text is brought into the forms that a flavour of the accuracy compares
(`data.answers.FLAVOURS`) once, when that flavour is first asked for; there these forms become
integers, so that an evaluation is one comparison of arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from data.answers import FLAVOURS

ANNOTATORS = 10
_BLOCK = 16384  # questions whose references are compared with each other at a time
Codes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class _Forms:
    """References [n, 10] in the form that is compared, whether they agree [n], and the classes'
    texts [C] in the form that is compared where they do, and where not."""

    references: Codes
    agreeing: npt.NDArray[np.bool_]
    classes_agreeing: Codes
    classes: Codes


@dataclass(frozen=True)
class References:
    """What predictions for n questions are compared with.

    Attributes:
        answers: int32 [n, 10], codes into `answer_texts`.
        class_texts: of the C classes.
    """

    answers: Codes
    answer_texts: Sequence[str]
    class_texts: Sequence[str]
    _known: dict[str, _Forms] = field(default_factory=dict, repr=False, compare=False)

    def matches(
        self, predicted: npt.NDArray[np.int64], flavour: str = "official"
    ) -> npt.NDArray[np.int64]:
        """Of each question's references, how many equal the predicted class [n] -> [n]."""
        forms = self._forms(flavour)
        form = np.where(forms.agreeing, forms.classes_agreeing[predicted], forms.classes[predicted])
        matching: npt.NDArray[np.int64] = (forms.references == form[:, None]).sum(axis=1)
        return matching

    def most_matches(self, flavour: str = "official") -> npt.NDArray[np.int64]:
        """The same for the best class of each question, int64 [n]: what no head can exceed."""
        forms = self._forms(flavour)
        best = np.zeros(len(forms.references), dtype=np.int64)
        for start in range(0, len(best), _BLOCK):
            span = slice(start, start + _BLOCK)
            own, agreeing = forms.references[span], forms.agreeing[span, None]
            there = np.where(
                agreeing, np.isin(own, forms.classes_agreeing), np.isin(own, forms.classes)
            )
            equal = (own[:, :, None] == own[:, None, :]).sum(axis=2)
            best[span] = (equal * there).max(axis=1)
        return best

    def _forms(self, flavour: str) -> _Forms:
        if flavour not in self._known:
            self._known[flavour] = self._made(flavour)
        return self._known[flavour]

    def _made(self, flavour: str) -> _Forms:
        numbers: dict[str, int] = {}

        def numbered(form: Callable[[str], str], texts: Sequence[str], wanted: Codes) -> Codes:
            coded = np.full(len(texts), -1, dtype=np.int32)
            for code in wanted.tolist():
                coded[code] = numbers.setdefault(form(texts[code]), len(numbers))
            return coded

        chosen = FLAVOURS[flavour]
        there = np.unique(self.answers)
        classes = np.arange(len(self.class_texts), dtype=np.int32)
        (raw_form, raw_guess), (form, guess) = chosen.agreeing, chosen.otherwise
        raw = numbered(raw_form, self.answer_texts, there)[self.answers]
        agreeing = (raw == raw[:, :1]).all(axis=1)
        other = numbered(form, self.answer_texts, there)[self.answers]
        return _Forms(
            references=np.where(agreeing[:, None], raw, other),
            agreeing=agreeing,
            classes_agreeing=numbered(raw_guess, self.class_texts, classes),
            classes=numbered(guess, self.class_texts, classes),
        )
