"""From a row of any format to an Example: its fields, their checks, and what is told of a bad row.

An adapter says which files a split is, how they fall into rows, and what each row's fields are in
the names below; the rest is the same for all:

- `image`: a path under the root, or a list of them;  `question`: a text.
- `answer`: a text, or `answers`: a list of annotators' texts or an object of text -> count, whose
  most frequent one (of several the first) is the majority answer unless `answer` names it. Null,
  [] and {} count as absent.
- optional `question_id`, `question_type`, `answer_type`, and `image_id` (a list beside a list of
  images; the paths where absent).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from data.example import (
    Example,
    Problem,
    is_id,
    majority,
    ordered_splits,
    report,
    require_folder,
    require_split,
)

KEYS = (
    "image",
    "question",
    "answer",
    "answers",
    "question_id",
    "image_id",
    "question_type",
    "answer_type",
)
Record = dict[str, Any]
Files = Mapping[str, tuple[str, ...]]
_SHOWN = 80  # characters of a value in a message
_MOST_ANNOTATORS = 1000  # of a question: more is a mistake in a count


class Malformed(Exception):
    """A row that is no example; the text says why."""


class Records:
    """An adapter whose splits are rows; a subclass names its files and reads its rows.

    Attributes:
        files: split -> the places, relative to the root, where its file may lie; the first that
            is there counts. A name with a star stands for all files of that pattern together.
        pictures: patterns of the image files, for people.
    """

    name: str
    files: ClassVar[Files] = {}
    pictures: tuple[str, ...] = ()

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path("datasets") / self.name if root is None else Path(root)

    def rows(self, split: str) -> Iterator[tuple[str, Any]]:
        """(where it stands, row) of a split, in order. A row that is a Malformed is told."""
        raise NotImplementedError

    def record(self, row: Any, split: str) -> Record:
        """A row's fields by the names of KEYS. Raises Malformed."""
        raise NotImplementedError

    def found(self) -> Iterable[str]:
        """Splits that are there."""
        return (split for split in self.files if self.paths(split))

    def paths(self, split: str) -> list[Path]:
        """The files of a split; empty where it is not there."""
        for pattern in self.files[split]:
            there = sorted(path for path in self.root.glob(pattern) if is_visible(path))
            if there:
                return there
        return []

    def splits(self) -> list[str]:
        require_folder(self)
        return ordered_splits(self.found())

    def annotated(self, split: str) -> bool:
        """Whether any row of the split has an answer; reads up to the first that has."""
        require_split(self, split)
        for _, row in self.rows(split):
            try:
                if has_answer(self._checked(row, split)):
                    return True
            except Malformed:
                continue  # told by `examples`
        return False

    def remarks(self, split: str) -> list[str]:
        return []

    def expected_files(self) -> list[str]:
        return [*(places[0] for places in self.files.values()), *self.pictures]

    def examples(self, split: str, problems: list[Problem] | None = None) -> Iterator[Example]:
        annotated = self.annotated(split)
        seen: set[str] = set()
        for where, row in self.rows(split):
            question_id = None
            try:
                record = self._checked(row, split)
                question_id = _question_id(record)
                example = _example(record, question_id, annotated)
                # a cache keeps the ids of a split as texts once one is, so 7 and "7" would collide
                if question_id is not None and str(question_id) in seen:
                    raise Malformed(f"question id {question_id} occurs twice, expected once")
            except Malformed as error:
                report(problems, question_id, f"{where}: {error}")
                continue
            if question_id is not None:
                seen.add(str(question_id))
            yield example

    def _checked(self, row: Any, split: str) -> Record:
        if isinstance(row, Malformed):
            raise row
        return self.record(row, split)


def is_visible(path: Path) -> bool:
    """Not what macOS writes beside a copied file: "._train.json" beside train.json."""
    return not path.name.startswith(".")


def required(row: Any, *keys: str) -> list[Any]:
    """Values of a row. Raises Malformed where it is no object or lacks one."""
    if not isinstance(row, dict):
        raise Malformed(f"found a {type(row).__name__}, expected an object with {', '.join(keys)}")
    for key in keys:
        if key not in row:
            found = ", ".join(map(shown, row)) or "none"
            raise Malformed(f'no key "{key}"; found: {found}')
    return [row[key] for key in keys]


def shown(value: Any) -> str:
    """As JSON has it, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def file_name(value: Any, key: str) -> str:
    """The value of a key, which names a file in a known folder. Raises Malformed."""
    if not isinstance(value, str) or "/" in value:
        raise Malformed(f"{key} is {shown(value)}, expected a file's name")
    return value


def has_answer(record: Record) -> bool:
    """Whether an annotation is there."""
    return record.get("answer") is not None or record.get("answers") not in (None, [], {})


def texts_of(value: Any, key: str) -> list[str]:
    """Annotators' answers of a list of objects that each hold the text `key`, or of texts."""
    if not isinstance(value, list):
        raise Malformed(f"answers is {shown(value)}, expected a list")
    texts = []
    for one in value:
        text = one.get(key) if isinstance(one, dict) else one
        if not isinstance(text, str):
            raise Malformed(f"answers holds {shown(one)}, expected texts")
        texts.append(text)
    return texts


def _question_id(record: Record) -> int | str | None:
    question_id = record.get("question_id")
    if question_id is None:
        return None
    if not is_id(question_id):
        raise Malformed(f"question_id is {shown(question_id)}, expected an integer or a text")
    return question_id  # type: ignore[no-any-return]


def _example(record: Record, question_id: int | str | None, annotated: bool) -> Example:
    images = _images(record)
    [question] = required(record, "question")
    if not isinstance(question, str):
        raise Malformed(f"question is {shown(question)}, expected a text")
    answer, answers = _answers(record) if annotated else (None, ())
    return Example(
        question_id=question_id,
        image_ids=_image_ids(record, images),
        images=images,
        question=question,
        answer=answer,
        answers=answers,
        question_type=_optional_text(record, "question_type"),
        answer_type=_optional_text(record, "answer_type"),
    )


def _images(record: Record) -> tuple[str, ...]:
    [value] = required(record, "image")
    paths: list[str] = value if isinstance(value, list) else [value]
    if not paths or not all(isinstance(path, str) and path for path in paths):
        raise Malformed(f"image is {shown(value)}, expected a path or a list of paths")
    for path in paths:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise Malformed(f"image {path!r} is outside the dataset, expected a path under it")
    return tuple(PurePosixPath(path).as_posix() for path in paths)


def _image_ids(record: Record, images: tuple[str, ...]) -> tuple[int | str, ...]:
    value = record.get("image_id")
    if value is None:
        return images
    ids = value if isinstance(value, list) else [value]
    if len(ids) != len(images) or not all(is_id(one) for one in ids):
        raise Malformed(
            f"image_id is {shown(value)}, expected an integer or a text for each of "
            f"{len(images)} images"
        )
    return tuple(ids)


def _answers(record: Record) -> tuple[str, tuple[str, ...]]:
    if not has_answer(record):
        raise Malformed("missing annotation: neither answer nor answers, which other lines have")
    answer, answers = record.get("answer"), record.get("answers")
    if answer is not None and not isinstance(answer, str):
        raise Malformed(f"answer is {shown(answer)}, expected a text")
    if isinstance(answers, dict):
        answers = _counted(answers)
    answers = [answer] if answers in (None, []) else answers
    if not isinstance(answers, list) or not all(isinstance(one, str) for one in answers):
        raise Malformed(f"answers is {shown(answers)}, expected a list of texts")
    return majority(answers) if answer is None else answer, tuple(answers)


def _counted(counts: dict[str, Any]) -> list[str]:
    """{"yes": 2, "no": 1} as the three answers that it counts."""
    whole = [type(count) is int and count > 0 for count in counts.values()]
    if not all(whole) or sum(counts.values()) > _MOST_ANNOTATORS:
        raise Malformed(f"answers is {shown(counts)}, expected whole counts of annotators")
    return [text for text, count in counts.items() for _ in range(count)]


def _optional_text(record: Record, key: str) -> str | None:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise Malformed(f"{key} is {shown(value)}, expected a text")
    return value
