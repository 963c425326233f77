"""Datasets of the field in miniature: the files as they are published, with their oddities."""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image

TEN = [{"answer": "red", "answer_confidence": "yes"}] * 9 + [
    {"answer": "blue", "answer_confidence": "no"}
]


@dataclass(frozen=True)
class Miniature:
    """How a dataset's files are written, and what reading them gives.

    Attributes:
        build: writes everything under a root, pictures too.
        counts: split -> examples.
        first: of the first split, the first example: question id, image ids, answer, answers,
            question type, answer type.
        questions: the file of the first split that is truncated, and one of its text that is
            replaced to make the first row malformed, by what, and how that is told.
        unlabelled: splits without answers.
    """

    build: Callable[[Path], None]
    counts: dict[str, int]
    first: tuple[Any, ...]
    questions: str
    replaced: tuple[str, str, str]
    unlabelled: Sequence[str] = ()


def png(colour: str = "red", size: int = 8) -> bytes:
    content = BytesIO()
    Image.new("RGB", (size, size), colour).save(content, "PNG")
    return content.getvalue()


def picture(path: Path, colour: str = "red") -> None:
    """A file in the format of its ending, and what macOS leaves beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)
    path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")


def write_lines(path: Path, *lines: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("\n".join(texts) + "\n")


def coco(root: Path, subtype: str, image_id: int) -> None:
    name = f"{image_id:012d}.jpg" if "2017" in subtype else f"COCO_{subtype}_{image_id:012d}.jpg"
    picture(root / subtype / name)


def official(subtype: str, ids: Sequence[int], **more: Any) -> tuple[dict[str, Any], Any]:
    questions = [{"question_id": i, "image_id": i // 10, "question": f"what {i}?"} for i in ids]
    annotations = [
        {
            "question_id": i,
            "image_id": i // 10,
            "question_type": "what",
            "answer_type": "other",
            "answers": [{**a, "answer_id": n + 1, **more} for n, a in enumerate(TEN)],
        }
        for i in reversed(ids)
    ]
    return {"questions": questions, "data_subtype": subtype}, {"annotations": annotations}


def vqa2(root: Path, prefix: str = "v2_") -> None:
    for subtype, ids in (("train2014", [10, 11]), ("val2014", [20])):
        questions, annotations = official(subtype, ids)
        write_json(root / f"{prefix}OpenEnded_mscoco_{subtype}_questions.json", questions)
        for one in annotations["annotations"]:
            one["multiple_choice_answer"] = "red"
        write_json(root / f"{prefix}mscoco_{subtype}_annotations.json", annotations)
        coco(root, subtype, ids[0] // 10)


def vqa1(root: Path) -> None:
    vqa2(root, "")


def ok_vqa(root: Path) -> None:
    for subtype, ids in (("train2014", [10, 11]), ("val2014", [20])):
        questions, annotations = official(subtype, ids, raw_answer="reds")
        write_json(root / f"OpenEnded_mscoco_{subtype}_questions.json", questions)
        write_json(root / f"mscoco_{subtype}_annotations.json", annotations)
        coco(root, subtype, ids[0] // 10)


def vqa_cp(root: Path) -> None:
    for split, ids in (("train", [10, 20]), ("test", [21])):
        questions, annotations = official("", ids)
        for one in (*questions["questions"], *annotations["annotations"]):
            one["coco_split"] = "val2014" if one["image_id"] == 2 else "train2014"
        write_json(root / f"vqacp_v2_{split}_questions.json", questions["questions"])
        write_json(root / f"vqacp_v2_{split}_annotations.json", annotations["annotations"])
    coco(root, "train2014", 1)
    coco(root, "val2014", 2)


def a_okvqa(root: Path) -> None:
    row = {"question_id": "22MexNk", "image_id": 9, "question": "what?", "choices": list("abcd")}
    answers = {"direct_answers": ["red"] * 9 + ["blue"], "difficult_direct_answer": False}
    write_json(root / "aokvqa_v1p0_train.json", [{**row, **answers, "correct_choice_idx": 1}])
    write_json(root / "aokvqa_v1p0_test.json", [{**row, "difficult_direct_answer": True}])
    coco(root, "val2017", 9)  # dealt out anew against 2014
    coco(root, "test2017", 9)


def vizwiz(root: Path) -> None:
    for split in ("train", "test"):
        image = f"VizWiz_{split}_00000000.jpg"
        row = {"image": image, "question": "what is this?"}
        answers = {"answers": TEN, "answer_type": "other", "answerable": 1}
        write_json(root / f"{split}.json", [row if split == "test" else {**row, **answers}])
        picture(root / split / image)


def text_vqa(root: Path) -> None:
    row = {"question_id": 5, "image_id": "0054c9", "question": "what brand?", "set_name": "train"}
    rows = {"train": [{**row, "answers": ["red"] * 9 + ["blue"]}], "test": [row]}
    for split, data in rows.items():
        write_json(root / f"TextVQA_0.5.1_{split}.json", {"dataset_type": split, "data": data})
        picture(root / f"{split}_images" / "0054c9.jpg")


def clevr(root: Path) -> None:
    for split, answered in (("train", True), ("test", False)):
        row = {
            "question_index": 0,
            "image_index": 0,
            "image_filename": f"CLEVR_{split}_000000.png",
            "split": split,
            "question": "How many?",
        }
        more = {"answer": "3", "program": [{"function": "scene"}, {"function": "count"}]}
        questions = [{**row, **more} if answered else row]
        path = root / "questions" / f"CLEVR_{split}_questions.json"
        write_json(path, {"info": {"split": split}, "questions": questions})
        picture(root / "images" / split / f"CLEVR_{split}_000000.png")


def gqa_rows(*ids: str, answered: bool = True) -> dict[str, Any]:
    row = {
        "imageId": "n161313",
        "question": "what?",
        "isBalanced": True,
        "groups": {"global": None, "local": "10-x"},
        "types": {"structural": "query", "semantic": "attr", "detailed": "color"},
    }
    return {
        i: {**row, "answer": "red", "fullAnswer": "It is red."} if answered else row for i in ids
    }


def gqa(root: Path) -> None:
    write_json(root / "train_balanced_questions.json", gqa_rows("07333408", "07333409"))
    write_json(root / "test_balanced_questions.json", gqa_rows("1", answered=False))
    picture(root / "images" / "n161313.jpg")


def gqa_all(root: Path) -> None:
    for shard in range(10):
        path = root / "train_all_questions" / f"train_all_questions_{shard}.json"
        write_json(path, gqa_rows(f"0733340{shard}"))
    write_json(root / "test_all_questions.json", gqa_rows("1", answered=False))
    picture(root / "images" / "n161313.jpg")


def coco_qa(root: Path) -> None:
    for split in ("train", "test"):
        columns = {
            "questions": ["what is this", "how many"],
            "answers": ["cat", "two"],
            "img_ids": ["7", "8"],
            "types": ["0", "1"],
        }
        for name, lines in columns.items():
            write_lines(root / split / f"{name}.txt", *lines)
    coco(root, "train2014", 7)
    coco(root, "val2014", 8)


def daquar(root: Path, classes: str = "894") -> None:
    triples = ["what is on the desk ?", "lamp, book", "image3", "what colour ?", "red", "image3"]
    write_lines(root / f"qa.{classes}.raw.train.format_triple", *triples)
    write_lines(
        root / f"qa.{classes}.raw.test.format_triple", "how many chairs ?", "2", "image1449 "
    )
    for number in (3, 1449):
        picture(root / "images" / f"image{number}.png")


def daquar_37(root: Path) -> None:
    daquar(root, "37")


def nlvr(root: Path) -> None:
    for name in ("train", "dev"):
        row = {
            "sentence": "There is a box.",
            "label": "true",
            "identifier": "12-0",
            "directory": "4",
            "evals": {"r0": "true"},
            "structured_rep": [],
        }
        write_lines(root / name / f"{name}.json", row, {**row, "identifier": "12-1"})
        for k in range(6):
            for m in range(2):
                picture(root / name / "images" / "4" / f"{name}-12-{m}-{k}.png")


def nlvr2(root: Path) -> None:
    row = {"sentence": "Both are dogs.", "label": "True", "synset": "dog", "writer": 1}
    train = {**row, "identifier": "train-10171-0-0", "directory": 63}
    write_lines(root / "train.json", train)
    write_lines(root / "dev.json", {**row, "identifier": "dev-850-0-1"})
    for k in range(2):
        picture(root / "images" / "train" / "63" / f"train-10171-0-img{k}.png")
        picture(root / "dev" / f"dev-850-0-img{k}.png")


def vqa_rad(root: Path) -> None:
    row = {"image_name": "synpic54610.jpg", "question": "is it?", "answer": "Yes "}
    kinds = {"answer_type": "CLOSED ", "question_type": "PRES, POS", "phrase_type": "freeform"}
    number = {**row, **kinds, "qid": "2", "answer": 12, "phrase_type": "test_para"}
    write_json(root / "VQA_RAD Dataset Public.json", [{**row, **kinds, "qid": 1}, number])
    picture(root / "VQA_RAD Image Folder" / "synpic54610.jpg")


def slake(root: Path) -> None:
    row = {
        "img_id": 1,
        "img_name": "xmlab1/source.jpg",
        "question": "What modality?",
        "answer": "MRI",
        "q_lang": "en",
        "content_type": "Modality",
        "answer_type": "OPEN",
        "triple": ["vhead", "_", "_"],
    }
    chinese = {**row, "qid": 1, "q_lang": "zh", "question": "什么？"}
    write_json(root / "train.json", [{**row, "qid": 0}, chinese])
    write_json(root / "validate.json", [{**row, "qid": 3}])
    picture(root / "imgs" / "xmlab1" / "source.jpg")


def easy_vqa(root: Path) -> None:
    for split in ("train", "test"):
        write_json(root / split / "questions.json", [["is there a circle?", "yes", 0]])
        picture(root / split / "images" / "0.png")


def jsonl(root: Path) -> None:
    row = {"image": "a.png", "question": "what?", "question_id": 1}
    write_lines(root / "train.jsonl", {**row, "answers": {"red": 9, "blue": 1}})
    write_lines(root / "test.jsonl", row)
    picture(root / "a.png")


def own_csv(root: Path) -> None:
    rows = [
        [1, "a.png", "what, or who?", "red|red|blue"],
        [2, "a.png|a.png", "same?", "yes"],
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / "test.tsv").write_text("image\tquestion\na.png\twhat?\n")
    with open(root / "train.csv", "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["question_id", "image", "question", "answers"], *rows])
    picture(root / "a.png")


def parquet(root: Path) -> None:
    (root / "data").mkdir(parents=True, exist_ok=True)
    for split, answered in (("train", True), ("validation", False)):
        for part in range(2):
            rows = [
                {
                    "question_id": part * 2 + n,
                    "question": f"what {n}?",
                    "image": {"bytes": png("red" if part else "blue"), "path": f"{part}.png"},
                    "image_id": part,
                    "multiple_choice_answer": "red" if answered else None,
                    "answers": TEN if answered else None,
                }
                for n in range(2)
            ]
            path = root / "data" / f"{split}-{part:05d}-of-00002.parquet"
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=1)


def webdataset(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for shard in range(2):
        with tarfile.open(root / f"train-{shard:06d}.tar", "w") as tar:
            fields = {"question": "what?", "answer": "red", "question_id": shard, "licence": "?"}
            members = {
                f"{shard}.jpg": png("red" if shard else "blue"),
                f"._{shard}.json": b"\0\5",
                f"{shard}.json": json.dumps(fields).encode(),
            }
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, BytesIO(content))


NINE = ("red",) * 9 + ("blue",)
MINIATURES = {
    "a_okvqa": Miniature(
        a_okvqa, {"train": 1, "test": 1},
        ("22MexNk", (9,), "red", NINE, None, "direct"),
        "aokvqa_v1p0_train.json", ('"image_id": 9', '"image_id": "9"', "image_id is"), ("test",),
    ),
    "clevr": Miniature(
        clevr, {"train": 1, "test": 1},
        (0, ("CLEVR_train_000000.png",), "3", ("3",), "count", "number"),
        "questions/CLEVR_train_questions.json",
        ('"question_index"', '"index"', 'no key "question_index"'), ("test",),
    ),
    "coco_qa": Miniature(
        coco_qa, {"train": 2, "test": 2}, (0, (7,), "cat", ("cat",), None, "object"),
        "train/types.txt", ("0", "5", "types.txt has"),
    ),
    "csv": Miniature(
        own_csv, {"train": 2, "test": 1},
        (1, ("a.png",), "red", ("red", "red", "blue"), None, None),
        "train.csv", ("a.png,", "../a.png,", "is outside the dataset"), ("test",),
    ),
    "daquar": Miniature(
        daquar, {"train": 2, "test": 1},
        (0, ("image3",), "lamp, book", ("lamp, book",), None, None),
        "qa.894.raw.train.format_triple", ("lamp, book\n", "", "found 2 lines up to"),
    ),
    "daquar_37": Miniature(
        daquar_37, {"train": 2, "test": 1},
        (0, ("image3",), "lamp, book", ("lamp, book",), None, None),
        "qa.37.raw.train.format_triple", ("lamp, book", "", "the answer is empty"),
    ),
    "easy_vqa": Miniature(
        easy_vqa, {"train": 1, "test": 1}, (0, (0,), "yes", ("yes",), "is there", "yes/no"),
        "train/questions.json", ('"yes"', "3", "entry 0 is"),
    ),
    "gqa": Miniature(
        gqa, {"train": 2, "test": 1},
        ("07333408", ("n161313",), "red", ("red",), "query", "open"),
        "train_balanced_questions.json", ('"n161313"', "161313", "imageId is 161313"), ("test",),
    ),
    "gqa_all": Miniature(
        gqa_all, {"train": 10, "test": 1},
        ("07333400", ("n161313",), "red", ("red",), "query", "open"),
        "train_all_questions/train_all_questions_0.json",
        ('"question"', '"text"', 'no key "question"'), ("test",),
    ),
    "jsonl": Miniature(
        jsonl, {"train": 1, "test": 1}, (1, ("a.png",), "red", NINE, None, None),
        "train.jsonl", ("9", "-9", "expected whole counts"), ("test",),
    ),
    "nlvr": Miniature(
        nlvr, {"train": 2, "val": 2},
        ("12-0", tuple(f"train-12-0-{k}" for k in range(6)), "true", ("true",), None, None),
        "train/train.json", ("12-0", "12", "identifier is"),
    ),
    "nlvr2": Miniature(
        nlvr2, {"train": 1, "val": 1},
        ("train-10171-0-0", ("train-10171-0-img0", "train-10171-0-img1"), "True", ("True",),
         None, None),
        "train.json", ('"sentence"', '"text"', 'no key "sentence"'),
    ),
    "ok_vqa": Miniature(
        ok_vqa, {"train": 2, "val": 1}, (10, (1,), "red", NINE, "what", "other"),
        "OpenEnded_mscoco_train2014_questions.json",
        ('"image_id": 1', '"image_id": "x"', "has image_id 'x'"),
    ),
    "parquet": Miniature(
        parquet, {"train": 4, "val": 4}, (0, (0,), "red", NINE, None, None),
        "data/train-00000-of-00002.parquet", ("", "", ""), ("val",),
    ),
    "slake": Miniature(
        slake, {"train": 2, "val": 1}, (0, (1,), "MRI", ("MRI",), "Modality", "open"),
        "train.json", ('"img_name"', '"name"', 'no key "img_name"'),
    ),
    "slake_en": Miniature(
        slake, {"train": 1, "val": 1}, (0, (1,), "MRI", ("MRI",), "Modality", "open"),
        "train.json", ('"xmlab1/source.jpg"', "3", "img_name is 3"),
    ),
    "text_vqa": Miniature(
        text_vqa, {"train": 1, "test": 1}, (5, ("0054c9",), "red", NINE, None, None),
        "TextVQA_0.5.1_train.json", ('"0054c9"', "54", "image_id is 54"), ("test",),
    ),
    "vizwiz": Miniature(
        vizwiz, {"train": 1, "test": 1},
        ("VizWiz_train_00000000.jpg", ("VizWiz_train_00000000.jpg",), "red", NINE, "answerable",
         "other"),
        "train.json", ('"answerable": 1', '"answerable": 2', "answerable is 2"), ("test",),
    ),
    "vqa1": Miniature(
        vqa1, {"train": 2, "val": 1}, (10, (1,), "red", NINE, "what", "other"),
        "OpenEnded_mscoco_train2014_questions.json",
        ('"question": "what 10?"', '"question": 3', "has no question"),
    ),
    "vqa2": Miniature(
        vqa2, {"train": 2, "val": 1}, (10, (1,), "red", NINE, "what", "other"),
        "v2_OpenEnded_mscoco_train2014_questions.json",
        ('"question": "what 10?"', '"question": 3', "has no question"),
    ),
    "vqa_cp": Miniature(
        vqa_cp, {"train": 2, "test": 1}, (10, (1,), "red", NINE, "what", "other"),
        "vqacp_v2_train_questions.json", ('"question_id": 10', '"id": 10', "has no question_id"),
    ),
    "vqa_rad": Miniature(
        vqa_rad, {"train": 1, "test": 1},
        (1, ("synpic54610.jpg",), "Yes", ("Yes",), "PRES", "closed"),
        "VQA_RAD Dataset Public.json", ('"qid": 1', '"id": 1', 'no key "qid"'),
    ),
    "webdataset": Miniature(
        webdataset, {"train": 2}, (0, ("0",), "red", ("red",), None, None),
        "train-000000.tar", ("", "", ""),
    ),
}  # fmt: skip
