"""TextVQA: questions about text in pictures of Open Images.

Source: textvqa.org (Singh et al. 2019). CC BY 4.0.

    TextVQA_0.5.1_{train,val,test}.json     {"data": [questions]}
    train_images/<image id>.jpg             of train and val
    test_images/<image id>.jpg

34,602 questions of train, 5,000 of val, 5,734 of test (without answers). Ten answers each. Its own
evaluator normalises both sides always (flavour `evalai`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from data.image_folders import ImageFolders
from data.json_stream import json_entries
from data.records import Files, Record, Records, file_name, required, texts_of


class TextVqa(Records):
    """Adapter of TextVQA, see the module's docstring for the files."""

    name = "text_vqa"
    files: ClassVar[Files] = {
        split: (f"TextVQA_0.5.1_{split}.json", f"TextVQA_*_{split}.json")
        for split in ("train", "val", "test")
    }
    pictures = ("train_images/*.jpg", "test_images/*.jpg")

    def rows(self, split: str) -> Iterator[tuple[str, Any]]:
        folder = "test_images" if split == "test" else "train_images"
        images = ImageFolders(self.root, (folder, f"images/{folder}"))
        path = self.paths(split)[-1]  # of several releases the newest
        for place, row in json_entries(path, "TextVQA's list 'data'", within="data"):
            yield f"{path}: data[{place}]", (row, images)

    def record(self, row: Any, split: str) -> Record:
        entry, images = row
        question_id, image_id, question = required(entry, "question_id", "image_id", "question")
        image_id = file_name(image_id, "image_id")
        answers = entry.get("answers")
        return {
            "question_id": question_id,
            "image": images.path(image_id),
            "image_id": image_id,
            "question": question,
            "answers": None if answers is None else texts_of(answers, "answer"),
        }
