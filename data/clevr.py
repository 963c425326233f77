"""CLEVR v1.0: questions that a program answers, over rendered scenes.

Source: cs.stanford.edu/people/jcjohns/clevr (Johnson et al. 2017). CC BY 4.0. As unpacked:

    questions/CLEVR_{train,val,test}_questions.json
    images/{train,val,test}/CLEVR_{train,val,test}_<6 digits>.png

70,000, 15,000 and 15,000 images; 699,989, 149,991 and 149,988 questions; 28 answers; test has none.
Images are numbered from 0 in each split, so `image_id` is the file's name.

`question_type` is the last step of the question's program ("count", "exist", "query_color", ...);
`answer_type` is "yes/no", "number" or "attribute".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from data.json_stream import json_entries
from data.records import Files, Record, Records, file_name, required

_SPLITS = ("train", "val", "test")


class Clevr(Records):
    """Adapter of CLEVR, see the module's docstring for the files."""

    name = "clevr"
    files: ClassVar[Files] = {
        split: (f"questions/CLEVR_{split}_questions.json",) for split in _SPLITS
    }
    pictures = tuple(f"images/{split}/CLEVR_{split}_*.png" for split in _SPLITS)

    def rows(self, split: str) -> Iterator[tuple[str, Any]]:
        [path] = self.paths(split)
        for place, row in json_entries(path, "CLEVR's list 'questions'", within="questions"):
            yield f"{path}: questions[{place}]", row

    def record(self, row: Any, split: str) -> Record:
        question_id, image, question = required(row, "question_index", "image_filename", "question")
        image = file_name(image, "image_filename")
        answer = row.get("answer")
        return {
            "question_id": question_id,
            "image": f"images/{split}/{image}",
            "image_id": image,
            "question": question,
            "answer": answer,
            "question_type": _last_step(row.get("program")),
            "answer_type": _answer_type(answer),
        }


def _last_step(program: Any) -> str | None:
    """Released programs name a step's kind "function"; the generator's own files "type"."""
    step = program[-1] if isinstance(program, list) and program else None
    return step.get("function", step.get("type")) if isinstance(step, dict) else None


def _answer_type(answer: Any) -> str | None:
    if not isinstance(answer, str):
        return None
    if answer in ("yes", "no"):
        return "yes/no"
    return "number" if answer.isdecimal() else "attribute"
