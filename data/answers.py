"""Answer normalisation and VQA accuracy as the official evaluator of 2021 computes them.

Flavour "official-2021": GT-Vision-Lab/VQA at a013f00. Standard library only, so that training can
use it without this package's adapters. Its oddities are kept on purpose, because published figures
contain them:

- A period goes only where no digit follows, and only the first 32 periods that match go.
- Marks are looked for in the original text: one mark next to a space deletes all of its kind,
  otherwise each becomes a space; a digit-comma-digit anywhere makes every mark be deleted.
- Words: "none" is "0", so "no one" is "no 1"; "a", "A." and "the" become the empty text, which a
  prediction can then match.
- Where all references agree they are compared raw, case-sensitive: "Yes" scores 0 against ten
  "yes".
- The contraction of "somebody'd" goes backwards, to "somebodyd"; "im" and "ive" stay, because the
  official table spells their keys with a capital that lower-cased text never has.
- One reference alone leaves nothing to compare with, so its accuracy is always 0; a dataset with
  one answer a question is measured by exact match instead.

Other evaluators differ in the forms that they compare, see FLAVOURS; all leave one out.

One thing differs: a reference is left out by its place, not by equality of its whole entry, which
drops several at once where entries lack an id. The two agree wherever entries have ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

MARKS = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = frozenset({"a", "an", "the"})
DIGITS = {
    word: str(value)
    for value, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
} | {"none": "0"}

# answers whose singular, as a rule makes it, is another word or none (a journal's list)
KEPT_APART = frozenset(
    {"brass", "bus", "cs", "doubles", "dominos", "downs", "fries", "glasses", "lots", "shades"}
    | {"singles", "ss", "trunks", "us", "uss"}
)

_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS_REMOVED = 32

# the ordinary contractions: each ending with the words that take it
_ENDINGS = {
    "n't": "ai are ca could did does do had has have is might must need ought sha should was were "
    "wo would",
    "n't've": "could had might should would",
    "'ve": "could might must should would not what where who we they you",
    "'d": "he how it someone something there they where who you",
    "'d've": "he it she somebody someone something there they we who you",
    "'ll": "how it somebody someone something they what who why you",
    "'s": "he how somebody someone that there what when where who why",
    "'re": "there they what why you",
}
_OTHERS = ("ma'am", "o'clock", "'twas", "'ow's'at", "y'all", "y'all'll", "y'all'd've")


def _one_apostrophe_less(word: str) -> Iterator[str]:
    for place, letter in enumerate(word):
        if letter == "'":
            yield word[:place] + word[place + 1 :]


def _contractions() -> dict[str, str]:
    """Misspelt contraction -> contraction: each ordinary one with exactly one apostrophe gone.

    Left out like in the official table: those whose misspelling is another word or nearly so
    (it's, he'll, she'll, she'd, we'd, we'll, I'd, I'll).
    """
    words = [start + ending for ending, starts in _ENDINGS.items() for start in starts.split()]
    table = {less: word for word in [*words, *_OTHERS] for less in _one_apostrophe_less(word)}
    table["somebody'd"] = "somebodyd"
    return table


CONTRACTIONS = _contractions()


def clean(text: str) -> str:
    """Newlines and tabs as spaces, the ends stripped: done to every answer before comparing."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def normalise(text: str) -> str:
    """Punctuation, case, number words, articles, contractions, as the official evaluator has it.

    Done only where the references disagree; `clean` comes before.
    """
    without = _without_punctuation(text)
    words = (DIGITS.get(word, word) for word in without.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def same_when_normalised(texts: Iterable[str]) -> list[list[str]]:
    """Distinct texts in groups that `normalise` makes one, both in order of appearance."""
    groups: dict[str, list[str]] = {}
    for text in dict.fromkeys(texts):
        groups.setdefault(normalise(text), []).append(text)
    return list(groups.values())


def merge_plurals(
    counts: Mapping[str, int],
    singular: Callable[[str], str | None],
    kept_apart: Collection[str] = KEPT_APART,
) -> dict[str, str]:
    """Which answers are counted as another: of an answer and its singular, where both occur, the
    more frequent one stands for both, the plural where they are as frequent.

    Nothing is substituted twice: where the answer that stands for another is itself replaced, the
    first keeps to it.

    Args:
        counts: how often each answer occurs.
        singular: the singular of a plural, None of any other text.
        kept_apart: plurals that are left as they are.

    Returns:
        Replaced answer -> the one that stands for it.
    """
    merged: dict[str, str] = {}
    for plural, often in counts.items():
        one = None if plural in kept_apart else singular(plural)
        if one is not None and one != plural and one in counts:
            if counts[one] > often:
                merged[plural] = one
            else:
                merged[one] = plural
    return merged


def _without_punctuation(text: str) -> str:
    out = text
    delete_all = _DIGIT_COMMA_DIGIT.search(text) is not None
    for mark in MARKS:
        if mark in text:
            beside_space = f"{mark} " in text or f" {mark}" in text
            out = out.replace(mark, "" if delete_all or beside_space else " ")
    return _PERIOD.sub("", out, count=_PERIODS_REMOVED)


def _cleaned_and_normalised(text: str) -> str:
    return normalise(clean(text))


def evalai_form(text: str) -> str:
    """As TextVQA's evaluator has it: commas and question marks gone and "'s" apart before the rest,
    so that "1, 2" is "1 2" and "dog's" is "dog 's"."""
    words = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return normalise(clean(words))


@dataclass(frozen=True)
class Flavour:
    """What an evaluator compares: (form of a reference, form of a prediction), where all references
    of a question agree in the first of these forms, and otherwise."""

    agreeing: tuple[Callable[[str], str], Callable[[str], str]]
    otherwise: tuple[Callable[[str], str], Callable[[str], str]]


_ALIKE = (_cleaned_and_normalised, _cleaned_and_normalised)
FLAVOURS = {
    # the evaluator of 2021: raw where all agree
    "official": Flavour((clean, clean), _ALIKE),
    # before, and still in LAVIS and openvqa: predictions always normalised, references never more
    # than their punctuation, so nothing matches ten "the cat" or "none"
    "official_2017": Flavour(
        (str, _cleaned_and_normalised), (_without_punctuation, _cleaned_and_normalised)
    ),
    # VizWiz: references as they are
    "vizwiz": Flavour((str, _cleaned_and_normalised), (str, _cleaned_and_normalised)),
    # TextVQA, and the server of VQA: both sides always
    "evalai": Flavour((evalai_form, evalai_form), (evalai_form, evalai_form)),
}


def vqa_accuracy_official(
    prediction: str, references: Sequence[str], flavour: str = "official"
) -> float:
    """VQA accuracy of one question, 0 to 1, as the official evaluator or another one has it.

    Each reference is left out in turn; the prediction scores min(matches among the others / 3, 1);
    the mean of these is the accuracy (for ten references min(0.3 x matches, 1)). Raises ValueError
    without references.
    """
    matches, n = _matches(prediction, references, flavour)
    # leaving out one that matches leaves matches - 1 of them; one that does not leaves all
    matching = matches * min(1.0, max(0, matches - 1) / 3)
    return (matching + (n - matches) * min(1.0, matches / 3)) / n


def vqa_accuracy_simple(prediction: str, references: Sequence[str]) -> float:
    """min(matches / 3, 1) over all references, cleaned and normalised as for the official one.

    Higher than the official accuracy by about a point. Raises ValueError without references.
    """
    return min(1.0, _matches(prediction, references)[0] / 3)


def _matches(
    prediction: str, references: Sequence[str], flavour: str = "official"
) -> tuple[int, int]:
    """Number of references that equal the prediction in a flavour's forms, and of references."""
    if not references:
        raise ValueError("VQA accuracy: found no references, expected one at least; leave it out")
    of_reference, of_prediction = FLAVOURS[flavour].agreeing
    if len(set(map(of_reference, references))) > 1:
        of_reference, of_prediction = FLAVOURS[flavour].otherwise
    forms = [of_reference(reference) for reference in references]
    return forms.count(of_prediction(prediction)), len(forms)
