"""What a dataset holds, how its splits overlap, and what guessing without the image reaches.

Every figure comes from one pass over the examples; of an example nothing is kept but numbers, so
that a million questions fit. Shares are of the questions that have an answer, 0 to 1.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.answers import same_when_normalised
from data.example import Dataset, DatasetError, Example, Problem, tree_command
from data.members import open_member

SHOWN = 10  # problems printed of each split, answers of a histogram; all are counted
COVERAGES = (100, 1000, 3000)  # sizes of an answer vocabulary
SAMPLES = 12  # examples of a split that the page shows
_BITS = (12, 52)  # of 64: a picture with fewer or more set is too plain to be told by them


@dataclass(slots=True)
class Looked:
    """An image that was opened: digest of its bytes, and 64 bits of how it looks."""

    digest: bytes
    looks: int


@dataclass(slots=True)
class Content:
    """What one split holds.

    Attributes:
        questions: distinct question -> its number.
        pairs: (question's number, answer) -> how often.
        types: (question type, answer) -> how often.
        rows: a hash of each distinct (images, question, answer).
        images: path -> what opening gave, None where it was not opened.
        unseen, found: questions whose answer train never has; that looking their question up in
            train answers rightly. None for train itself.
    """

    annotated: bool
    examples: int = 0
    questions: dict[str, int] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    pairs: Counter[tuple[int, str]] = field(default_factory=Counter)
    types: Counter[tuple[str, str]] = field(default_factory=Counter)
    rows: set[int] = field(default_factory=set)
    images: dict[str, Looked | None] = field(default_factory=dict)
    unseen: int | None = None
    found: int | None = None
    opened: int = 0
    samples: list[Example] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, example: Example) -> None:
        """Count one."""
        self.examples += 1
        number = self.questions.setdefault(example.question, len(self.questions))
        self.images.update(dict.fromkeys(example.images))
        self.rows.add(hash((example.images, example.question, example.answer)))
        if len(self.samples) < SAMPLES:
            self.samples.append(example)
        if example.answer is not None:
            self.answers[example.answer] += 1
            self.pairs[number, example.answer] += 1
            self.types[example.question_type or "", example.answer] += 1


@dataclass(frozen=True, slots=True)
class Overlap:
    """What the second split has of the first: images by path or content, images that look alike
    beside those, and whole rows."""

    first: str
    second: str
    images: int
    of_images: int
    alike: int
    rows: int
    of_rows: int


@dataclass(frozen=True)
class Checked:
    """A dataset that was looked at, split by split."""

    name: str
    root: Path
    splits: dict[str, Content]
    overlaps: list[Overlap]

    @property
    def wrong(self) -> int:
        """Problems, and images that splits share."""
        shared = sum(overlap.images for overlap in self.overlaps)
        return shared + sum(len(content.wrong) for content in self.splits.values())


def check_dataset(name: str, dataset: Dataset, limit: int | None) -> Checked:
    """Look at every split; `limit`: open so many images a split at most.

    Raises DatasetError where a split cannot be read at all, or none is there.
    """
    names = dataset.splits()
    if not names:
        raise DatasetError(
            f"dataset {name}: no split in {dataset.root}; `{tree_command(dataset)}` prints the "
            "files expected"
        )
    splits: dict[str, Content] = {}
    for split in names:
        splits[split] = _look(dataset, split, limit, splits.get("train"))
    return Checked(name, dataset.root, splits, _overlaps(splits))


def _look(dataset: Dataset, split: str, limit: int | None, train: Content | None) -> Content:
    content = Content(dataset.annotated(split))
    problems: list[Problem] = []
    lookup = _lookup(train) if train is not None and content.annotated else None
    if lookup is not None:
        content.unseen = content.found = 0
    for example in dataset.examples(split, problems):
        content.add(example)
        if lookup is not None and train is not None and example.answer is not None:
            content.unseen = (content.unseen or 0) + (example.answer not in train.answers)
            guess = lookup.get(train.questions.get(example.question, -1), lookup[-1])
            content.found = (content.found or 0) + (guess == example.answer)
    content.wrong += [problem.what for problem in problems]
    if split == "train" and content.examples and not content.annotated:
        content.wrong.append(f"{split}: no answers, so nothing can be trained on it")
    if not content.examples and not content.wrong:
        content.wrong.append(f"{split}: no questions, expected some")
    content.remarks += dataset.remarks(split) + _spelt_apart(split, content.answers)
    for image in list(content.images)[:limit]:
        try:
            content.images[image] = _open_image(str(dataset.root / image))
            content.opened += 1
        except DatasetError as error:
            content.wrong.append(str(error))
    return content


def _lookup(train: Content) -> dict[int, str | None]:
    """Each question's most frequent answer in train; of an unknown one (-1) train's own."""
    best: dict[int, str | None] = {}
    most: dict[int, int] = {}
    for (number, answer), count in train.pairs.items():
        if count > most.get(number, 0):
            best[number], most[number] = answer, count
    common = train.answers.most_common(1)
    return {**best, -1: common[0][0] if common else None}


def _spelt_apart(split: str, answers: Iterable[str]) -> list[str]:
    """A line where answers differ in case, blanks or punctuation alone."""
    groups = [group for group in same_when_normalised(answers) if len(group) > 1]
    if not groups:
        return []
    count, named = sum(map(len, groups)), ", ".join(map(repr, groups[0][:SHOWN]))
    return [
        f"{split}: {count:,} answers are {len(groups):,} in other spellings ({named}); "
        "answers.normalise=vqa makes one class of each"
    ]


def _open_image(path: str) -> Looked:
    """DatasetError for what stage 1 could not decode either."""
    from data.images import ImageError, difference_hash, open_image

    try:
        looks = difference_hash(open_image(path))
        with open_member(path) as file:
            return Looked(hashlib.file_digest(file, "sha256").digest(), looks)
    except ImageError as error:
        raise DatasetError(f"{path}: {error}") from None
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from None


def _overlaps(splits: dict[str, Content]) -> list[Overlap]:
    """Of every pair of splits that share something."""
    found = []
    names = list(splits)
    for place, first in enumerate(names):
        own = splits[first]
        digests = {one.digest for one in own.images.values() if one}
        looks = {one.looks for one in own.images.values() if one and _is_telling(one.looks)}
        for second in names[place + 1 :]:
            other = splits[second]
            same = {
                p for p, o in other.images.items() if p in own.images or (o and o.digest in digests)
            }
            alike = sum(
                o is not None and o.looks in looks and p not in same
                for p, o in other.images.items()
            )
            rows = len(own.rows & other.rows)
            if same or alike or rows:
                sizes = len(other.images), len(other.rows)
                found.append(Overlap(first, second, len(same), sizes[0], alike, rows, sizes[1]))
    return found


def _is_telling(looks: int) -> bool:
    return _BITS[0] <= looks.bit_count() <= _BITS[1]


# ---------------------------------------------------------------- figures


def gini(counts: Iterable[int]) -> float | None:
    """Gini coefficient of frequencies: 0 where all answers are equally frequent, towards 1 where
    one has them all; None without any. With x ascending: 2 sum(i x_i) / (n sum x) - (n + 1) / n.
    """
    ascending = sorted(counts)
    n, total = len(ascending), sum(ascending)
    if not total:
        return None
    weighted = sum(place * count for place, count in enumerate(ascending, start=1))
    return 2 * weighted / (n * total) - (n + 1) / n


def figures(content: Content, train: Content | None) -> dict[str, Any]:
    """Everything about a split that is a number, as `--json` prints it."""
    labelled = content.answers.total()
    ranked = [count for _, count in content.answers.most_common()]
    covering = train.answers.most_common(max(COVERAGES)) if train is not None else []

    def share(count: float | None) -> float | None:
        return None if count is None or not labelled else count / labelled

    return {
        "annotated": content.annotated,
        "questions": content.examples,
        "distinct_questions": len(content.questions),
        "labelled": labelled,
        "distinct_answers": len(content.answers),
        "images": len(content.images),
        "images_opened": content.opened,
        "problems": len(content.wrong),
        "answers": dict(content.answers.most_common(SHOWN)),
        "top_share": {str(k): share(sum(ranked[:k])) for k in (1, 2, 10)},
        "gini": gini(ranked),
        "coverage": {
            str(k): share(sum(content.answers[answer] for answer, _ in covering[:k]))
            for k in COVERAGES
        },
        "unseen_answers": share(content.unseen),
        "question_lookup": share(content.found),
        "question_types": _by_type(content),
    }


def _by_type(content: Content) -> dict[str, dict[str, Any]]:
    """Question type -> how many, its most frequent answer, and that one's share."""
    totals: Counter[str] = Counter()
    best: dict[str, tuple[int, str]] = {}
    for (kind, answer), count in content.types.items():
        totals[kind] += count
        if count > best.get(kind, (0, ""))[0]:
            best[kind] = count, answer
    return {
        kind or "none given": {
            "n": total,
            "answer": best[kind][1],
            "share": best[kind][0] / total,
        }
        for kind, total in totals.most_common()
    }


def as_object(checked: Checked) -> dict[str, Any]:
    """The whole check as one object."""
    train = checked.splits.get("train")
    return {
        "dataset": checked.name,
        "root": str(checked.root),
        "wrong": checked.wrong,
        "overlaps": [
            {name: getattr(overlap, name) for name in Overlap.__slots__}
            for overlap in checked.overlaps
        ],
        "splits": {name: figures(content, train) for name, content in checked.splits.items()},
    }
