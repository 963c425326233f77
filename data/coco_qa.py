"""COCO-QA: questions made of COCO captions, one word an answer.

Source: www.cs.toronto.edu/~mren/research/imageqa/data/cocoqa (Ren et al. 2015). Images: COCO's
terms. Four files of equally many lines in each of train/ and test/:

    {train,test}/questions.txt  answers.txt  img_ids.txt  types.txt

78,736 and 38,948 questions. Ids are of COCO 2014, of either of its splits, so both folders are
looked in: train2014, then val2014 (or COCO 2017's). The files have no question ids; the line's
place, from 0, is one. `answer_type` is "object", "number", "color" or "location" (0 to 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from data.example import DatasetError
from data.image_folders import CocoImages
from data.records import Files, Malformed, Record, Records, shown
from data.text_file import text_lines

TYPES = {"0": "object", "1": "number", "2": "color", "3": "location"}
_FILES = ("questions", "answers", "img_ids", "types")


class CocoQa(Records):
    """Adapter of COCO-QA, see the module's docstring for the files."""

    name = "coco_qa"
    files: ClassVar[Files] = {split: (f"{split}/questions.txt",) for split in ("train", "test")}
    pictures = ("train2014/COCO_train2014_*.jpg", "val2014/COCO_val2014_*.jpg")

    def expected_files(self) -> list[str]:
        texts = [f"{split}/{name}.txt" for split in self.files for name in _FILES]
        return [*texts, *self.pictures]

    def rows(self, split: str) -> Iterator[tuple[str, Any]]:
        folder = self.root / split
        columns = [text_lines(folder / f"{name}.txt") for name in _FILES]
        counts = [len(column) for column in columns]
        if len(set(counts)) > 1:
            told = ", ".join(f"{name}.txt {n:,}" for name, n in zip(_FILES, counts, strict=True))
            raise DatasetError(
                f"{folder}: files of different numbers of lines ({told}), expected one number, "
                "since lines belong together; get the files again"
            )
        images = CocoImages(self.root, "train2014", "val2014")
        for place, row in enumerate(zip(*columns, strict=True)):
            yield f"{folder}: line {place + 1}", (place, row, images)

    def record(self, row: Any, split: str) -> Record:
        place, (question, answer, image_id, kind), images = row
        if not image_id.isdecimal():
            raise Malformed(f"img_ids.txt has {shown(image_id)}, expected a number")
        if kind not in TYPES:
            raise Malformed(f"types.txt has {shown(kind)}, expected 0, 1, 2 or 3")
        if not answer:
            raise Malformed("answers.txt has an empty line, expected a word")
        return {
            "question_id": place,
            "image": images.path(int(image_id)),
            "image_id": int(image_id),
            "question": question,
            "answer": answer,
            "answer_type": TYPES[kind],
        }
