"""VizWiz: questions that blind people asked about photos they took.

Source: vizwiz.org (Gurari et al. 2018; the files of 2020). CC BY 4.0.

    {train,val,test}.json       or VizWiz_{train,val,test}.json; also in Annotations/
    {train,val,test}/VizWiz_{train,val,test}_<8 digits>.jpg     12 digits in the older release

20,523 questions of train, 4,319 of val, 8,000 of test (without answers); one question an image, so
the image's name is the question's id, as the official evaluator has it. Ten answers each; the
majority of them is often "unanswerable".

`question_type` is "answerable" or "unanswerable", from the file's field `answerable`: VizWiz has no
types of questions, and its second task is to tell these two apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from data.image_folders import ImageFolders
from data.json_stream import json_entries
from data.records import Files, Malformed, Record, Records, file_name, required, shown, texts_of

_SPLITS = ("train", "val", "test")


class VizWiz(Records):
    """Adapter of VizWiz, see the module's docstring for the files."""

    name = "vizwiz"
    files: ClassVar[Files] = {
        split: tuple(
            f"{folder}{prefix}{split}.json"
            for folder in ("", "Annotations/", "annotations/")
            for prefix in ("", "VizWiz_")
        )
        for split in _SPLITS
    }
    pictures = tuple(f"{split}/VizWiz_{split}_*.jpg" for split in _SPLITS)

    def rows(self, split: str) -> Iterator[tuple[str, Any]]:
        images = ImageFolders(self.root, (split, f"images/{split}", "images", "Images"))
        [path] = self.paths(split)
        for place, row in json_entries(path, "VizWiz's list of questions"):
            yield f"{path}: entry {place}", (row, images)

    def record(self, row: Any, split: str) -> Record:
        entry, images = row
        image, question = required(entry, "image", "question")
        image = file_name(image, "image")
        answers = entry.get("answers")
        kind = {None: None, 0: "unanswerable", 1: "answerable"}
        answerable = entry.get("answerable")
        if type(answerable) not in (int, type(None)) or answerable not in kind:
            raise Malformed(f"answerable is {shown(answerable)}, expected 0 or 1")
        return {
            "question_id": image,
            "image": images.path(image),
            "image_id": image,
            "question": question,
            "answers": None if answers is None else texts_of(answers, "answer"),
            "question_type": kind[answerable],
            "answer_type": entry.get("answer_type"),
        }
