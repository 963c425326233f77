"""The official VQA JSON: a questions file and an annotations file, joined by question id."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from data.example import (
    DatasetError,
    Example,
    Problem,
    is_id,
    majority,
    ordered_splits,
    report,
    require_folder,
    require_split,
)
from data.json_file import read_json


class Images(Protocol):
    """Where an image lies."""

    def path(self, image_id: int) -> str:
        """Relative to the root."""


def _intern_answers(entry: dict[str, Any]) -> Any:
    """Reduce an annotator's answer to its text while parsing: VQA v2 has 6.6 million of them."""
    answer = entry.get("answer")
    if isinstance(answer, str) and "question_id" not in entry:
        return sys.intern(answer)
    return entry


class OfficialJson:
    """Base of adapters of official VQA JSON; a subclass names its files and images."""

    name: str
    every_split: tuple[str, ...] = ("train", "val", "test")

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path("datasets") / self.name if root is None else Path(root)

    def questions_file(self, split: str) -> Path | None:
        """Where it is there."""
        raise NotImplementedError

    def annotations_file(self, split: str) -> Path | None:
        """Where it is there."""
        raise NotImplementedError

    def images(self, split: str) -> Images:
        """Of the split's questions."""
        raise NotImplementedError

    def listed(self, content: Any, key: str) -> Any:
        """The list of entries of a file that holds `key`, "questions" or "annotations"."""
        return content.get(key) if isinstance(content, dict) else None

    def expected_files(self) -> list[str]:
        raise NotImplementedError

    def splits(self) -> list[str]:
        require_folder(self)
        return ordered_splits(split for split in self.every_split if self.questions_file(split))

    def annotated(self, split: str) -> bool:
        require_split(self, split)
        return self.annotations_file(split) is not None

    def remarks(self, split: str) -> list[str]:
        return []

    def examples(self, split: str, problems: list[Problem] | None = None) -> Iterator[Example]:
        require_split(self, split)
        path = self.questions_file(split)
        if path is None:
            raise DatasetError(f"dataset {self.name}: the questions of {split!r} went away")
        questions = self._entries(path, "questions", problems)
        annotations_path = self.annotations_file(split)
        annotations = None
        if annotations_path is not None:
            asked = {question["question_id"] for question in questions}
            annotations = self._annotations_by_id(annotations_path, asked, problems)
        images = self.images(split)
        seen: set[int | str] = set()
        for question in questions:
            key = question["question_id"]
            if key in seen:
                report(problems, key, f"{path}: question id {key} occurs twice, expected once")
                continue
            seen.add(key)
            if annotations is None:
                yield _unlabelled(question, images)
            elif key in annotations:
                annotation = annotations.pop(key)
                what = _mismatch(question, annotation)
                if what:
                    report(problems, key, f"{annotations_path}: {what}")
                else:
                    yield _labelled(question, annotation, images)
            else:
                report(
                    problems,
                    key,
                    f"{annotations_path}: missing annotation of question {key}, asked in "
                    f"{path.name}; expected one for every question; get the file again",
                )

    def _entries(
        self, path: Path, key: str, problems: list[Problem] | None
    ) -> list[dict[str, Any]]:
        """The well-formed entries of the list `key` of a VQA file."""
        content = read_json(path, f"VQA JSON with a list {key!r}", _intern_answers)
        entries = self.listed(content, key)
        if not isinstance(entries, list):
            raise DatasetError(
                f"{path}: found no list {key!r}, expected VQA JSON; get the file again"
            )
        check = _malformed_question if key == "questions" else _malformed_annotation
        sound = []
        for position, entry in enumerate(entries):
            what = check(entry)
            if what:
                question_id = entry.get("question_id") if isinstance(entry, dict) else None
                where = f"{path}: {key}[{position}]"
                report(problems, question_id if is_id(question_id) else None, f"{where} {what}")
            else:
                sound.append(entry)
        return sound

    def _annotations_by_id(
        self, path: Path, asked: set[int | str], problems: list[Problem] | None
    ) -> dict[int | str, dict[str, Any]]:
        found: dict[int | str, dict[str, Any]] = {}
        for annotation in self._entries(path, "annotations", problems):
            key = annotation["question_id"]
            if key in found:
                what = (
                    f"annotation of question id {key} occurs twice, expected once; the first holds"
                )
                report(problems, key, f"{path}: {what}")
            elif key not in asked:
                what = (
                    f"annotation of unknown question {key}, expected only ids of the questions file"
                )
                report(problems, key, f"{path}: {what}")
            else:
                found[key] = annotation
        return found


def _malformed_question(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return "is no object, expected question_id, image_id and question"
    if not is_id(entry.get("question_id")):
        return "has no question_id, expected an integer"
    if type(entry.get("image_id")) is not int:
        return f"has image_id {entry.get('image_id')!r}, expected an integer"
    if not isinstance(entry.get("question"), str):
        return "has no question, expected a text"
    return None


def _malformed_annotation(entry: Any) -> str | None:
    if not isinstance(entry, dict) or not is_id(entry.get("question_id")):
        return "has no question_id, expected an integer"
    answers = entry.get("answers", [])
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        return "has malformed answers, expected a list of objects with a text 'answer'"
    for name in ("question_type", "answer_type"):
        if not isinstance(entry.get(name), str | None):
            return f"has {name} {entry[name]!r}, expected a text"
    chosen = entry.get("multiple_choice_answer")
    if chosen is not None and not isinstance(chosen, str):
        return f"has multiple_choice_answer {chosen!r}, expected a text"
    if chosen is None and not answers:
        return "is a missing annotation: neither multiple_choice_answer nor answers"
    return None


def _mismatch(question: dict[str, Any], annotation: dict[str, Any]) -> str | None:
    image_id, expected = annotation.get("image_id", question["image_id"]), question["image_id"]
    if image_id == expected:
        return None
    return (
        f"annotation of question {question['question_id']} is about image {image_id}, expected "
        f"{expected} as in the questions file; are both files of one release?"
    )


def _unlabelled(question: dict[str, Any], images: Images) -> Example:
    return Example(
        question_id=question["question_id"],
        image_ids=(question["image_id"],),
        images=(images.path(question["image_id"]),),
        question=question["question"],
    )


def _labelled(question: dict[str, Any], annotation: dict[str, Any], images: Images) -> Example:
    answers = tuple(annotation.get("answers", ()))
    chosen = annotation.get("multiple_choice_answer")
    answer = majority(answers) if chosen is None else chosen
    return Example(
        question_id=question["question_id"],
        image_ids=(question["image_id"],),
        images=(images.path(question["image_id"]),),
        question=question["question"],
        answer=answer,
        answers=answers or (answer,),
        question_type=annotation.get("question_type"),
        answer_type=annotation.get("answer_type"),
    )
