"""VQA-RAD: questions about radiology images.

Source: osf.io/89kps (Lau et al. 2018). CC0 1.0. Either the file as published,

    VQA_RAD Dataset Public.json     and    VQA_RAD Image Folder/<name>.jpg

whose test questions are those with a `phrase_type` of "test_...", or the two files that go around,
trainset.json and testset.json, with images/<name>.jpg. 2,248 questions on
315 images: 1,797 of train and 451 of test, which share images.

`answer_type` is "open" or "closed" (also where the file has "CLOSED "), `question_type` the first
of the types listed ("PRES, POS" is "PRES"). Answers that are JSON numbers are texts here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from data.image_folders import ImageFolders
from data.json_stream import json_entries
from data.records import Files, Record, Records, file_name, required

PUBLIC = "VQA_RAD Dataset Public.json"


def answer_text(answer: Any) -> Any:
    """Answers are typed by hand: numbers among texts, blanks around them."""
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return str(answer)
    return answer.strip() if isinstance(answer, str) else answer


def kind_of_answer(row: Record) -> str | None:
    """open or closed, however it is spelt."""
    kind = row.get("answer_type")
    return kind.strip().lower() if isinstance(kind, str) else None


class VqaRad(Records):
    """Adapter of VQA-RAD, see the module's docstring for the files."""

    name = "vqa_rad"
    files: ClassVar[Files] = {split: (PUBLIC, f"{split}set.json") for split in ("train", "test")}
    pictures = ("VQA_RAD Image Folder/*.jpg",)

    def expected_files(self) -> list[str]:
        return [PUBLIC, *self.pictures]

    def rows(self, split: str) -> Iterator[tuple[str, Any]]:
        images = ImageFolders(self.root, ("VQA_RAD Image Folder", "images"))
        [path] = self.paths(split)
        for place, row in json_entries(path, "VQA-RAD's list of questions"):
            if path.name != PUBLIC or _split_of(row) == split:
                yield f"{path}: entry {place}", (row, images)

    def record(self, row: Any, split: str) -> Record:
        entry, images = row
        question_id, image, question = required(entry, "qid", "image_name", "question")
        image = file_name(image, "image_name")
        kind = entry.get("question_type")
        return {
            "question_id": question_id,
            "image": images.path(image),
            "image_id": image,
            "question": question,
            "answer": answer_text(entry.get("answer")),
            "question_type": kind.split(",")[0].strip() if isinstance(kind, str) else None,
            "answer_type": kind_of_answer(entry),
        }


def _split_of(row: Any) -> str:
    """A row that is no object counts as train, where it is told."""
    phrase = row.get("phrase_type") if isinstance(row, dict) else None
    return "test" if isinstance(phrase, str) and phrase.startswith("test") else "train"
