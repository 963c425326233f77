"""GQA: compositional questions over scene graphs of Visual Genome images.

Source: cs.stanford.edu/people/dorarad/gqa (Hudson and Manning 2019). CC BY 4.0.

    {train,val,testdev,test,challenge}_balanced_questions.json     {question id: question}
    images/<image id>.jpg

under the root, or in `questions/` or `questions1.2/` there. 943,000, 132,062 and 12,578 balanced
questions of train, val and testdev; test and challenge have no answers. Question ids and image ids
are texts ("05451384", "n161313"). `gqa_all` reads the unbalanced files, of which train is a folder
of ten shards, train_all_questions/train_all_questions_{0..9}.json.

`answer_type` is the official evaluator's "open" (of structural type "query") or "binary";
`question_type` is the structural type. Files are read question by question, never held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from data.json_stream import json_entries
from data.records import Files, Record, Records, file_name, required

_FOLDERS = ("", "questions/", "questions1.2/")
_SPLITS = ("train", "val", "testdev", "test", "challenge")


class Gqa(Records):
    """Adapter of GQA, see the module's docstring for the files."""

    name = "gqa"
    files: ClassVar[Files] = {
        split: tuple(f"{folder}{split}_balanced_questions.json" for folder in _FOLDERS)
        for split in _SPLITS
    }
    pictures = ("images/*.jpg",)

    def rows(self, split: str) -> Iterator[tuple[str, Any]]:
        for path in self.paths(split):
            for key, row in json_entries(path, "GQA's object of questions by id"):
                yield f"{path}: question {key}", (key, row)

    def record(self, row: Any, split: str) -> Record:
        question_id, entry = row
        image_id, question = required(entry, "imageId", "question")
        image_id = file_name(image_id, "imageId")
        types = entry.get("types") or {}
        structural = types.get("structural") if isinstance(types, dict) else None
        kind = "open" if structural == "query" else "binary"
        return {
            "question_id": question_id,
            "image": f"images/{image_id}.jpg",
            "image_id": image_id,
            "question": question,
            "answer": entry.get("answer"),
            "question_type": structural,
            "answer_type": None if structural is None else kind,
        }


class GqaAll(Gqa):
    """The unbalanced questions, see the module's docstring for the files."""

    name = "gqa_all"
    files: ClassVar[Files] = {
        split: tuple(
            f"{folder}{split}_all_questions{ending}"
            for folder in _FOLDERS
            for ending in (".json", f"/{split}_all_questions_[0-9].json")
        )
        for split in _SPLITS
    }
