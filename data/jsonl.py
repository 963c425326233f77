"""One's own data: `<root>/<split>.jsonl`, one JSON object a line.

    {"image": "photos/1.jpg", "question": "is it raining?", "answer": "no"}

- `image`: a path under the root, or a list of them;  `question`: a text.
- `answer`: a text, or `answers`: a list of annotators' texts, whose most frequent one (of several
  the first) is the majority answer unless `answer` names it. Null and [] count as absent.
- optional `question_id`, `question_type`, `answer_type`, and `image_id` (a list beside a list of
  images; the paths where absent).

A file in which no line has an answer is an unlabelled split; where some line has one, a line
without is a missing annotation. Blank lines are skipped, other keys not read. Files are streamed,
never held.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

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

_SHOWN = 80  # characters of a value in a message
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


class _Malformed(Exception):
    """A line that is no example; the text says why."""


class Jsonl:
    """Adapter of JSON lines, see the module's docstring for the fields."""

    name = "jsonl"

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path("datasets") / self.name if root is None else Path(root)

    def splits(self) -> list[str]:
        require_folder(self)
        # no hidden files: "._train.jsonl" is what macOS writes beside a copied train.jsonl
        return ordered_splits(path.stem for path in self.root.glob("[!.]*.jsonl"))

    def annotated(self, split: str) -> bool:
        """Whether any line of the split has an answer; reads up to the first that has."""
        require_split(self, split)
        for _, line in self._lines(split):
            try:
                if _has_answer(_parse(line)):
                    return True
            except _Malformed:
                continue  # told by `examples`
        return False

    def remarks(self, split: str) -> list[str]:
        """Keys that are not read, a misspelt one among them: one line each."""
        unread: Counter[str] = Counter()
        for _, line in self._lines(split):
            with suppress(_Malformed):  # told by `examples`
                unread.update(set(_parse(line)) - set(KEYS))
        return [
            f"{self.root / split}.jsonl: key {_shown(key)} of {count:,} lines is not read; known: "
            f"{', '.join(KEYS)}"
            for key, count in sorted(unread.items())
        ]

    def expected_files(self) -> list[str]:
        return ["train.jsonl", "val.jsonl", "test.jsonl"]

    def examples(self, split: str, problems: list[Problem] | None = None) -> Iterator[Example]:
        annotated = self.annotated(split)
        seen: set[str] = set()
        for number, line in self._lines(split):
            where = f"{self.root / split}.jsonl:{number}"
            question_id = None
            try:
                entry = _parse(line)
                question_id = _question_id(entry)
                example = _example(entry, question_id, annotated)
                # a cache keeps the ids of a split as texts once one is, so 7 and "7" would collide
                if question_id is not None and str(question_id) in seen:
                    raise _Malformed(f"question id {question_id} occurs twice, expected once")
            except _Malformed as error:
                report(problems, question_id, f"{where}: {error}")
                continue
            if question_id is not None:
                seen.add(str(question_id))
            yield example

    def _lines(self, split: str) -> Iterator[tuple[int, bytes]]:
        with open(self.root / f"{split}.jsonl", "rb") as file:
            for number, line in enumerate(file, start=1):
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if line.strip():
                    yield number, line


def _parse(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _Malformed(f"byte {error.start} of the line is not UTF-8") from None
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at column {error.colno}"
        raise _Malformed(f"truncated or invalid JSON ({reason}), expected one object") from None
    except ValueError:
        raise _Malformed("a number of thousands of digits, expected one object") from None
    except RecursionError:
        raise _Malformed("JSON nested too deep, expected one flat object") from None
    if not isinstance(entry, dict):
        raise _Malformed(f"found a {type(entry).__name__}, expected a JSON object")
    return entry


def _required(entry: dict[str, Any], key: str) -> Any:
    if key not in entry:
        found = ", ".join(map(_shown, entry)) or "none"
        raise _Malformed(f'no key "{key}"; found: {found}')
    return entry[key]


def _shown(value: Any) -> str:
    """As JSON has it, shortened."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _has_answer(entry: dict[str, Any]) -> bool:
    return entry.get("answer") is not None or entry.get("answers") not in (None, [])


def _question_id(entry: dict[str, Any]) -> int | str | None:
    question_id = entry.get("question_id")
    if question_id is None:
        return None
    if not is_id(question_id):
        raise _Malformed(f"question_id is {_shown(question_id)}, expected an integer or a text")
    return question_id  # type: ignore[no-any-return]


def _example(entry: dict[str, Any], question_id: int | str | None, annotated: bool) -> Example:
    images = _images(entry)
    question = _required(entry, "question")
    if not isinstance(question, str):
        raise _Malformed(f"question is {_shown(question)}, expected a text")
    answer, answers = _answers(entry) if annotated else (None, ())
    return Example(
        question_id=question_id,
        image_ids=_image_ids(entry, images),
        images=images,
        question=question,
        answer=answer,
        answers=answers,
        question_type=_optional_text(entry, "question_type"),
        answer_type=_optional_text(entry, "answer_type"),
    )


def _images(entry: dict[str, Any]) -> tuple[str, ...]:
    value: Any = _required(entry, "image")
    paths: list[str] = value if isinstance(value, list) else [value]
    if not paths or not all(isinstance(path, str) and path for path in paths):
        raise _Malformed(f"image is {_shown(value)}, expected a path or a list of paths")
    for path in paths:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise _Malformed(f"image {path!r} is outside the dataset, expected a path under it")
    return tuple(PurePosixPath(path).as_posix() for path in paths)


def _image_ids(entry: dict[str, Any], images: tuple[str, ...]) -> tuple[int | str, ...]:
    value = entry.get("image_id")
    if value is None:
        return images
    ids = value if isinstance(value, list) else [value]
    if len(ids) != len(images) or not all(is_id(one) for one in ids):
        raise _Malformed(
            f"image_id is {_shown(value)}, expected an integer or a text for each of "
            f"{len(images)} images"
        )
    return tuple(ids)


def _answers(entry: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    if not _has_answer(entry):
        raise _Malformed("missing annotation: neither answer nor answers, which other lines have")
    answer, answers = entry.get("answer"), entry.get("answers")
    if answer is not None and not isinstance(answer, str):
        raise _Malformed(f"answer is {_shown(answer)}, expected a text")
    answers = [answer] if answers in (None, []) else answers
    if not isinstance(answers, list) or not all(isinstance(one, str) for one in answers):
        raise _Malformed(f"answers is {_shown(answers)}, expected a list of texts")
    return majority(answers) if answer is None else answer, tuple(answers)


def _optional_text(entry: dict[str, Any], key: str) -> str | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise _Malformed(f"{key} is {_shown(value)}, expected a text")
    return value
