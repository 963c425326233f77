"""What reading the field's datasets in miniature gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Miniature:
    """What reading a dataset's files gives, see `benchmarks.inputs.miniatures`.

    Attributes:
        counts: split -> examples.
        first: of the first split, the first example: question id, image ids, answer, answers,
            question type, answer type.
        questions: the file of the first split that is truncated, and one of its text that is
            replaced to make the first row malformed, by what, and how that is told.
        unlabelled: splits without answers.
    """

    counts: dict[str, int]
    first: tuple[Any, ...]
    questions: str
    replaced: tuple[str, str, str]
    unlabelled: Sequence[str] = ()


NINE = ("red",) * 9 + ("blue",)
MINIATURES = {
    "a_okvqa": Miniature(
        {"train": 1, "test": 1},
        ("22MexNk", (9,), "red", NINE, None, "direct"),
        "aokvqa_v1p0_train.json", ('"image_id": 9', '"image_id": "9"', "image_id is"), ("test",),
    ),
    "clevr": Miniature(
        {"train": 1, "test": 1},
        (0, ("CLEVR_train_000000.png",), "3", ("3",), "count", "number"),
        "questions/CLEVR_train_questions.json",
        ('"question_index"', '"index"', 'no key "question_index"'), ("test",),
    ),
    "coco_qa": Miniature(
        {"train": 2, "test": 2}, (0, (7,), "cat", ("cat",), None, "object"),
        "train/types.txt", ("0", "5", "types.txt has"),
    ),
    "csv": Miniature(
        {"train": 2, "test": 1},
        (1, ("a.png",), "red", ("red", "red", "blue"), None, None),
        "train.csv", ("a.png,", "../a.png,", "is outside the dataset"), ("test",),
    ),
    "daquar": Miniature(
        {"train": 2, "test": 1},
        (0, ("image3",), "lamp, book", ("lamp, book",), None, None),
        "qa.894.raw.train.format_triple", ("lamp, book\n", "", "found 2 lines up to"),
    ),
    "daquar_37": Miniature(
        {"train": 2, "test": 1},
        (0, ("image3",), "lamp, book", ("lamp, book",), None, None),
        "qa.37.raw.train.format_triple", ("lamp, book", "", "the answer is empty"),
    ),
    "easy_vqa": Miniature(
        {"train": 1, "test": 1}, (0, (0,), "yes", ("yes",), "is there", "yes/no"),
        "train/questions.json", ('"yes"', "3", "entry 0 is"),
    ),
    "gqa": Miniature(
        {"train": 2, "test": 1},
        ("07333408", ("n161313",), "red", ("red",), "query", "open"),
        "train_balanced_questions.json", ('"n161313"', "161313", "imageId is 161313"), ("test",),
    ),
    "gqa_all": Miniature(
        {"train": 10, "test": 1},
        ("07333400", ("n161313",), "red", ("red",), "query", "open"),
        "train_all_questions/train_all_questions_0.json",
        ('"question"', '"text"', 'no key "question"'), ("test",),
    ),
    "jsonl": Miniature(
        {"train": 1, "test": 1}, (1, ("a.png",), "red", NINE, None, None),
        "train.jsonl", ("9", "-9", "expected whole counts"), ("test",),
    ),
    "nlvr": Miniature(
        {"train": 2, "val": 2},
        ("12-0", tuple(f"train-12-0-{k}" for k in range(6)), "true", ("true",), None, None),
        "train/train.json", ("12-0", "12", "identifier is"),
    ),
    "nlvr2": Miniature(
        {"train": 1, "val": 1},
        ("train-10171-0-0", ("train-10171-0-img0", "train-10171-0-img1"), "True", ("True",),
         None, None),
        "train.json", ('"sentence"', '"text"', 'no key "sentence"'),
    ),
    "ok_vqa": Miniature(
        {"train": 2, "val": 1}, (10, (1,), "red", NINE, "what", "other"),
        "OpenEnded_mscoco_train2014_questions.json",
        ('"image_id": 1', '"image_id": "x"', "has image_id 'x'"),
    ),
    "parquet": Miniature(
        {"train": 4, "val": 4}, (0, (0,), "red", NINE, None, None),
        "data/train-00000-of-00002.parquet", ("", "", ""), ("val",),
    ),
    "slake": Miniature(
        {"train": 2, "val": 1}, (0, (1,), "MRI", ("MRI",), "Modality", "open"),
        "train.json", ('"img_name"', '"name"', 'no key "img_name"'),
    ),
    "slake_en": Miniature(
        {"train": 1, "val": 1}, (0, (1,), "MRI", ("MRI",), "Modality", "open"),
        "train.json", ('"xmlab1/source.jpg"', "3", "img_name is 3"),
    ),
    "text_vqa": Miniature(
        {"train": 1, "test": 1}, (5, ("0054c9",), "red", NINE, None, None),
        "TextVQA_0.5.1_train.json", ('"0054c9"', "54", "image_id is 54"), ("test",),
    ),
    "vizwiz": Miniature(
        {"train": 1, "test": 1},
        ("VizWiz_train_00000000.jpg", ("VizWiz_train_00000000.jpg",), "red", NINE, "answerable",
         "other"),
        "train.json", ('"answerable": 1', '"answerable": 2', "answerable is 2"), ("test",),
    ),
    "vqa1": Miniature(
        {"train": 2, "val": 1}, (10, (1,), "red", NINE, "what", "other"),
        "OpenEnded_mscoco_train2014_questions.json",
        ('"question": "what 10?"', '"question": 3', "has no question"),
    ),
    "vqa2": Miniature(
        {"train": 2, "val": 1}, (10, (1,), "red", NINE, "what", "other"),
        "v2_OpenEnded_mscoco_train2014_questions.json",
        ('"question": "what 10?"', '"question": 3', "has no question"),
    ),
    "vqa_cp": Miniature(
        {"train": 2, "test": 1}, (10, (1,), "red", NINE, "what", "other"),
        "vqacp_v2_train_questions.json", ('"question_id": 10', '"id": 10', "has no question_id"),
    ),
    "vqa_rad": Miniature(
        {"train": 1, "test": 1},
        (1, ("synpic54610.jpg",), "Yes", ("Yes",), "PRES", "closed"),
        "VQA_RAD Dataset Public.json", ('"qid": 1', '"id": 1', 'no key "qid"'),
    ),
    "webdataset": Miniature(
        {"train": 2}, (0, ("0",), "red", ("red",), None, None),
        "train-000000.tar", ("", "", ""),
    ),
}  # fmt: skip
