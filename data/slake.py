"""SLAKE: questions about radiology images, in English and Chinese.

Source: med-vqa.com/slake (Liu et al. 2021). CC BY 4.0.

    train.json, validate.json, test.json     a list of questions
    imgs/<img_name>                          such as imgs/xmlab1/source.jpg

14,028 questions on 642 images; 4,919, 1,053 and 1,061 of train, validate and test are English.
`slake` reads both languages, `slake_en` the English ones. `question_type` is the file's
`content_type` ("Modality", "Organ", ...), `answer_type` "open" or "closed". validate is "val" here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from data.json_stream import json_entries
from data.records import Files, Malformed, Record, Records, required, shown
from data.vqa_rad import answer_text, kind_of_answer


class Slake(Records):
    """Adapter of SLAKE, see the module's docstring for the files."""

    name = "slake"
    language: ClassVar[str | None] = None
    files: ClassVar[Files] = {
        "train": ("train.json",),
        "val": ("validate.json",),
        "test": ("test.json",),
    }
    pictures = ("imgs/*/source.jpg",)

    def rows(self, split: str) -> Iterator[tuple[str, Any]]:
        [path] = self.paths(split)
        for place, row in json_entries(path, "SLAKE's list of questions"):
            spoken = row.get("q_lang") if isinstance(row, dict) else None
            if self.language is None or spoken in (None, self.language):
                yield f"{path}: entry {place}", row

    def record(self, row: Any, split: str) -> Record:
        question_id, image, question = required(row, "qid", "img_name", "question")
        if not isinstance(image, str):
            raise Malformed(f"img_name is {shown(image)}, expected a path under imgs/")
        return {
            "question_id": question_id,
            "image": f"imgs/{image}",
            "image_id": row.get("img_id", image),
            "question": question,
            "answer": answer_text(row.get("answer")),
            "question_type": row.get("content_type"),
            "answer_type": kind_of_answer(row),
        }


class SlakeEnglish(Slake):
    """The English questions."""

    name = "slake_en"
    language = "en"
