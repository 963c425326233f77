"""What a dataset adapter yields and promises: Example, Problem, DatasetError, Dataset."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

T = TypeVar("T", str, str | None)
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
SPLIT_ORDER = ("train", "val", "test")


class DatasetError(ValueError):
    """A dataset that cannot be read as it stands.

    The text is one line: what failed, where, what was found against what was expected, what to do.
    Ids, answers and names of files stand in it as they were found, so what would break the line, or
    is for a terminal, is escaped.
    """

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


@dataclass(frozen=True, slots=True)
class Example:
    """One question about one or several images.

    `images` are paths relative to the dataset's root with "/" separators, one for each of
    `image_ids`. `answer` is the majority answer, None where the split is unlabelled; the empty
    string is an answer like any other. `answers` holds all annotators' answers; a dataset with one
    answer a question repeats that one. `question_id` None asks the cache for a stable hash. Texts
    are kept in Unicode's normal form NFC: "café" is one answer, however its accent was typed.
    """

    question_id: int | str | None
    image_ids: tuple[int | str, ...]
    images: tuple[str, ...]
    question: str
    answer: str | None = None
    answers: tuple[str, ...] = ()
    question_type: str | None = None
    answer_type: str | None = None

    def __post_init__(self) -> None:
        texts = self.question, self.answer, self.question_type, self.answer_type, *self.answers
        if all(text is None or text.isascii() for text in texts):
            return  # as most are, and VQA v2 has seven million of them
        for name in ("question", "answer", "question_type", "answer_type"):
            object.__setattr__(self, name, nfc(getattr(self, name)))
        object.__setattr__(self, "answers", tuple(map(nfc, self.answers)))


@dataclass(frozen=True, slots=True)
class Problem:
    """One item that an adapter left out: its question id, if it has one, and what is wrong."""

    question_id: int | str | None
    what: str


class Dataset(Protocol):
    """What stage 1 relies on; an adapter opens no image file."""

    name: str
    root: Path

    def splits(self) -> list[str]:
        """Splits found under `root`: train, val, test, then others by name."""

    def examples(self, split: str, problems: list[Problem] | None = None) -> Iterator[Example]:
        """Examples of a split in the order of its files.

        A bad item (missing annotation in an annotated split, duplicate question id, malformed
        entry) raises DatasetError; given a list, it is appended there and left out instead.
        """

    def annotated(self, split: str) -> bool:
        """Whether the split has answers."""

    def remarks(self, split: str) -> list[str]:
        """What may be a mistake in the files of a split, one line each."""

    def expected_files(self) -> list[str]:
        """Glob patterns, relative to `root`, of the files that a complete copy holds."""


def report(problems: list[Problem] | None, question_id: int | str | None, what: str) -> None:
    """Append a problem, or raise it as DatasetError where nobody collects them."""
    if problems is None:
        raise DatasetError(what)
    problems.append(Problem(question_id, one_line(what)))


def one_line(text: str) -> str:
    """A text without what ends a line or what a terminal obeys, written as escapes instead."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def ordered_splits(found: Iterable[str]) -> list[str]:
    """Distinct split names: train, val, test, then others by name."""
    names = set(found)
    return [s for s in SPLIT_ORDER if s in names] + sorted(names - set(SPLIT_ORDER))


def require_split(dataset: Dataset, split: str) -> None:
    """Raise DatasetError, naming the splits there are, unless `split` is one of them."""
    found = dataset.splits()
    if split not in found:
        raise DatasetError(
            f"dataset {dataset.name}: no split {split!r} in {dataset.root}; found "
            f"{', '.join(found) or 'none'}; `{tree_command(dataset)}` prints the files expected"
        )


def tree_command(dataset: Dataset) -> str:
    """What prints the files that a dataset is made of."""
    return shlex.join(["python", "-m", "data", "tree", dataset.name, str(dataset.root)])


def require_folder(dataset: Dataset) -> None:
    """Raise DatasetError unless the dataset's root is a folder."""
    if not dataset.root.is_dir():
        raise DatasetError(
            f"dataset {dataset.name}: no folder {dataset.root}; put the dataset there or name its "
            f"folder with --root; `{tree_command(dataset)}` prints the files expected"
        )


def is_id(value: object) -> bool:
    """Whether a JSON value can be an id: an integer or a text; true and false are neither."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def nfc(text: T) -> T:
    """A text in the normal form that is compared, keyed and encoded; None stays None."""
    return text if text is None else unicodedata.normalize("NFC", text)


def majority(answers: Iterable[str]) -> str:
    """The most frequent answer; of several, the one that comes first."""
    counts: dict[str, int] = {}
    for answer in map(nfc, answers):
        counts[answer] = counts.get(answer, 0) + 1
    # max keeps the first of equals, and a dict keeps the order of first appearance
    return max(counts, key=counts.__getitem__)
