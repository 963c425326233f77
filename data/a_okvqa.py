"""A-OKVQA: questions that need knowledge of the world, over COCO 2017 images.

Source: github.com/allenai/aokvqa (Schwenk et al. 2022). Apache-2.0; images: COCO's terms.

    aokvqa_v1p0_{train,val,test}.json     a list of questions

17,056 questions of train, 1,145 of val, 6,702 of test (without answers). `answers` are the ten
`direct_answers`, scored by min(matches / 3, 1). The four choices of the multiple-choice task are
not read. `answer_type` is "difficult" where the file says so, otherwise "direct".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from data.image_folders import CocoImages
from data.json_stream import json_entries
from data.records import Files, Malformed, Record, Records, required, shown, texts_of

_COCO = {
    "train": ("train2017", "train2014", "val2014"),
    "val": ("val2017", "train2014", "val2014"),
    "test": ("test2017",),
}


class AOkVqa(Records):
    """Adapter of A-OKVQA, see the module's docstring for the files."""

    name = "a_okvqa"
    files: ClassVar[Files] = {
        split: (f"aokvqa_v1p0_{split}.json", f"annotations/aokvqa_v1p0_{split}.json")
        for split in _COCO
    }
    pictures = tuple(f"{places[0]}/*.jpg" for places in _COCO.values())

    def rows(self, split: str) -> Iterator[tuple[str, Any]]:
        images = CocoImages(self.root, *_COCO[split])
        [path] = self.paths(split)
        for place, row in json_entries(path, "A-OKVQA's list of questions"):
            yield f"{path}: entry {place}", (row, images)

    def record(self, row: Any, split: str) -> Record:
        entry, images = row
        question_id, image_id, question = required(entry, "question_id", "image_id", "question")
        if type(image_id) is not int:
            raise Malformed(f"image_id is {shown(image_id)}, expected an integer")
        answers = entry.get("direct_answers")
        difficult = entry.get("difficult_direct_answer") is True
        return {
            "question_id": question_id,
            "image": images.path(image_id),
            "image_id": image_id,
            "question": question,
            "answers": None if answers is None else texts_of(answers, "answer"),
            "answer_type": "difficult" if difficult else "direct",
        }
