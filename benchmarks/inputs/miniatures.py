"""The field's datasets in miniature: the files as they are published, with their oddities."""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image

TEN = [{"answer": "red", "answer_confidence": "yes"}] * 9 + [
    {"answer": "blue", "answer_confidence": "no"}
]


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


BUILDERS: dict[str, Callable[[Path], None]] = {
    "a_okvqa": a_okvqa,
    "clevr": clevr,
    "coco_qa": coco_qa,
    "csv": own_csv,
    "daquar": daquar,
    "daquar_37": daquar_37,
    "easy_vqa": easy_vqa,
    "gqa": gqa,
    "gqa_all": gqa_all,
    "jsonl": jsonl,
    "nlvr": nlvr,
    "nlvr2": nlvr2,
    "ok_vqa": ok_vqa,
    "parquet": parquet,
    "slake": slake,
    "slake_en": slake,
    "text_vqa": text_vqa,
    "vizwiz": vizwiz,
    "vqa1": vqa1,
    "vqa2": vqa2,
    "vqa_cp": vqa_cp,
    "vqa_rad": vqa_rad,
    "webdataset": webdataset,
}
