"""VQA v1 and v2 in the official JSON, over COCO images; our own `shapes` is written alike.

Source: visualqa.org (Antol et al. 2015; Goyal et al. 2017). Under the root, or in `questions/` and
`annotations/` there, lie

    [v2_]OpenEnded_mscoco_<subtype>_questions.json     subtype: train2014, val2014, test2015,
    [v2_]mscoco_<subtype>_annotations.json             test-dev2015

where the names without `v2_` are v1; where both lie together, v2 is read. A split without an
annotations file is unlabelled. Questions and annotations are joined by question id.

Images lie under the root or in `images/` there, in a folder named by the subtype as
COCO_<subtype>_<12 digits>.jpg, or <12 digits>.jpg as in COCO 2017 (whose train2017 and val2017 hold
the images of 2014 dealt out anew, so both are looked in); .png works for both.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

# split -> (subtype in the JSON names, subtype in image names, folders of COCO 2017)
SUBTYPES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "train": ("train2014", "train2014", ("train2017", "val2017")),
    "val": ("val2014", "val2014", ("val2017", "train2017")),
    "test": ("test2015", "test2015", ("test2017",)),
    "test-dev": ("test-dev2015", "test2015", ("test2017",)),
}


def _intern_answers(entry: dict[str, Any]) -> Any:
    """Reduce an annotator's answer to its text while parsing: VQA v2 has 6.6 million of them."""
    answer = entry.get("answer")
    if isinstance(answer, str) and "question_id" not in entry:
        return sys.intern(answer)
    return entry


class CocoImages:
    """Where the images of one split lie: each folder is listed once, no image is opened."""

    def __init__(self, root: Path, subtype: str, folders_2017: tuple[str, ...]) -> None:
        self.expected = f"{subtype}/COCO_{subtype}_%012d.jpg"
        stems = (f"COCO_{subtype}_%012d", "%012d")
        patterns = [stem + ending for stem in stems for ending in (".jpg", ".png", ".jpeg")]
        self._folders: list[tuple[str, frozenset[str]]] = []
        for folder in (subtype, *folders_2017):
            for relative in (folder, f"images/{folder}"):
                if (root / relative).is_dir():
                    names = frozenset(path.name for path in (root / relative).iterdir())
                    self._folders.append((relative, names))
        self._patterns = patterns
        self._known: dict[int, str] = {}

    def path(self, image_id: int) -> str:
        """The image's path relative to the root; the official one where no file is found."""
        if image_id not in self._known:
            self._known[image_id] = self._search(image_id)
        return self._known[image_id]

    def _search(self, image_id: int) -> str:
        wanted = [pattern % image_id for pattern in self._patterns]
        for folder, names in self._folders:
            for name in wanted:
                if name in names:
                    return f"{folder}/{name}"
        return self.expected % image_id


class Vqa2:
    """Adapter of VQA v1 and v2 JSON, see the module's docstring for the files."""

    name = "vqa2"

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path("datasets") / self.name if root is None else Path(root)

    def splits(self) -> list[str]:
        require_folder(self)
        return ordered_splits(split for split in SUBTYPES if self._questions_file(split))

    def annotated(self, split: str) -> bool:
        require_split(self, split)
        return self._annotations_file(split) is not None

    def remarks(self, split: str) -> list[str]:
        return []

    def expected_files(self) -> list[str]:
        files = []
        for split in ("train", "val", "test"):
            subtype = SUBTYPES[split][0]
            files.append(f"v2_OpenEnded_mscoco_{subtype}_questions.json")
            if split != "test":
                files.append(f"v2_mscoco_{subtype}_annotations.json")
            files.append(f"{subtype}/COCO_{subtype}_*.jpg")
        return files

    def examples(self, split: str, problems: list[Problem] | None = None) -> Iterator[Example]:
        require_split(self, split)
        path = self._questions_file(split)
        if path is None:
            raise DatasetError(f"dataset {self.name}: the questions of {split!r} went away")
        questions = _entries(path, "questions", problems)
        annotations_path = self._annotations_file(split)
        annotations = None
        if annotations_path is not None:
            asked = {question["question_id"] for question in questions}
            annotations = _annotations_by_id(annotations_path, asked, problems)
        images = CocoImages(self.root, *SUBTYPES[split][1:])
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

    def _questions_file(self, split: str) -> Path | None:
        return self._find("OpenEnded_", split, "questions")

    def _annotations_file(self, split: str) -> Path | None:
        questions = self._questions_file(split)
        prefix = "v2_" if questions is not None and questions.name.startswith("v2_") else ""
        return self._find("", split, "annotations", (prefix,))

    def _find(
        self, task: str, split: str, what: str, prefixes: tuple[str, ...] = ("v2_", "")
    ) -> Path | None:
        for prefix in prefixes:
            for folder in (self.root, self.root / what):
                path = folder / f"{prefix}{task}mscoco_{SUBTYPES[split][0]}_{what}.json"
                if path.is_file():
                    return path
        return None


def _entries(path: Path, key: str, problems: list[Problem] | None) -> list[dict[str, Any]]:
    """The well-formed entries of the list `key` of a VQA file."""
    content = read_json(path, f"VQA JSON with a list {key!r}", _intern_answers)
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise DatasetError(f"{path}: found no list {key!r}, expected VQA JSON; get the file again")
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


def _annotations_by_id(
    path: Path, asked: set[int | str], problems: list[Problem] | None
) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {}
    for annotation in _entries(path, "annotations", problems):
        key = annotation["question_id"]
        if key in found:
            what = f"annotation of question id {key} occurs twice, expected once; the first holds"
            report(problems, key, f"{path}: {what}")
        elif key not in asked:
            what = f"annotation of unknown question {key}, expected only ids of the questions file"
            report(problems, key, f"{path}: {what}")
        else:
            found[key] = annotation
    return found


def _mismatch(question: dict[str, Any], annotation: dict[str, Any]) -> str | None:
    image_id, expected = annotation.get("image_id", question["image_id"]), question["image_id"]
    if image_id == expected:
        return None
    return (
        f"annotation of question {question['question_id']} is about image {image_id}, expected "
        f"{expected} as in the questions file; are both files of one release?"
    )


def _unlabelled(question: dict[str, Any], images: CocoImages) -> Example:
    return Example(
        question_id=question["question_id"],
        image_ids=(question["image_id"],),
        images=(images.path(question["image_id"]),),
        question=question["question"],
    )


def _labelled(question: dict[str, Any], annotation: dict[str, Any], images: CocoImages) -> Example:
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
