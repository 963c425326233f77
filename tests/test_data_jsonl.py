"""JSON lines: fields, unlabelled splits, and every kind of bad line with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.example import DatasetError, Example, Problem
from data.jsonl import Jsonl

GOOD: dict[str, Any] = {"image": "a.jpg", "question": "is it raining?", "answer": "no"}


def written(root: Path, *lines: dict[str, Any] | str, split: str = "train") -> Jsonl:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (root / f"{split}.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return Jsonl(root)


def test_the_least_a_line_needs(tmp_path: Path) -> None:
    dataset = written(tmp_path, GOOD)
    assert dataset.splits() == ["train"]
    assert dataset.annotated("train")
    assert list(dataset.examples("train")) == [
        Example(None, ("a.jpg",), ("a.jpg",), "is it raining?", "no", ("no",))
    ]


def test_everything_a_line_may_hold(tmp_path: Path) -> None:
    dataset = written(
        tmp_path,
        {
            "question_id": "q7",
            "image": ["./left/1.png", "right/1.png"],
            "image_id": [1, "one"],
            "question": "same?",
            "answers": ["no", "yes", "yes", "no", ""],
            "question_type": "compare",
            "answer_type": "yes/no",
        },
    )
    [example] = dataset.examples("train")
    assert example == Example(
        "q7",
        (1, "one"),
        ("left/1.png", "right/1.png"),
        "same?",
        "no",  # as frequent as yes, and first
        ("no", "yes", "yes", "no", ""),
        "compare",
        "yes/no",
    )


def test_a_named_answer_outranks_the_most_frequent(tmp_path: Path) -> None:
    dataset = written(tmp_path, {**GOOD, "answer": "rain", "answers": ["no", "no"]})
    [example] = dataset.examples("train")
    assert (example.answer, example.answers) == ("rain", ("no", "no"))


def test_no_answer_anywhere_is_an_unlabelled_split(tmp_path: Path) -> None:
    line = {"image": "a.jpg", "question": "what?"}
    dataset = written(tmp_path, line, {**line, "answer": None, "answers": []}, split="test")
    assert not dataset.annotated("test")
    assert [(e.answer, e.answers) for e in dataset.examples("test")] == [(None, ())] * 2


def test_an_empty_answer_is_an_answer(tmp_path: Path) -> None:
    dataset = written(tmp_path, {**GOOD, "answer": ""})
    assert dataset.annotated("train")
    assert [(e.answer, e.answers) for e in dataset.examples("train")] == [("", ("",))]


def test_blank_lines_and_a_byte_order_mark_are_skipped(tmp_path: Path) -> None:
    dataset = written(tmp_path, "\ufeff" + json.dumps(GOOD), "", "  ", GOOD)
    assert len(list(dataset.examples("train"))) == 2


BAD: dict[str, dict[str, Any] | str] = {
    "missing annotation": {"image": "a.jpg", "question": "what?"},
    "truncated or invalid JSON": '{"image": "a.jpg", "ques',
    "found a list, expected a JSON object": "[1]",
    'no key "image"; found: "img", "question"$': {"img": "a.jpg", "question": "what?"},
    'no key "question"; found: "image", "label"$': {"image": "a.jpg", "label": "x"},
    "image is null, expected a path": {**GOOD, "image": None},
    "question is true, expected a text": {**GOOD, "question": True},
    "image is \\[\\]": {**GOOD, "image": []},
    "is outside the dataset": {**GOOD, "image": "../a.jpg"},
    "'/etc/a.jpg' is outside": {**GOOD, "image": "/etc/a.jpg"},
    "question is 3, expected a text": {**GOOD, "question": 3},
    "answer is 3, expected a text": {**GOOD, "answer": 3},
    'answers is "no", expected a list': {"image": "a", "question": "q", "answers": "no"},
    "question_id is true": {**GOOD, "question_id": True},
    "image_id is \\[1, 2\\], expected .* each of 1 images": {**GOOD, "image_id": [1, 2]},
    "answer_type is 1, expected a text": {**GOOD, "answer_type": 1},
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_line_is_named_with_file_and_line(message: str, tmp_path: Path) -> None:
    dataset = written(tmp_path, GOOD, BAD[message], GOOD)
    with pytest.raises(DatasetError, match=f"train.jsonl:2: .*{message}"):
        list(dataset.examples("train"))
    problems: list[Problem] = []
    assert len(list(dataset.examples("train", problems))) == 2
    assert len(problems) == 1


def test_duplicate_ids_keep_the_first(tmp_path: Path) -> None:
    first, second = {**GOOD, "question_id": 7}, {**GOOD, "question_id": "7", "answer": "yes"}
    dataset = written(tmp_path, first, second)
    problems: list[Problem] = []
    assert [e.answer for e in dataset.examples("train", problems)] == ["no"]
    assert problems[0].question_id == "7"
    with pytest.raises(DatasetError, match="question id 7 occurs twice, expected once"):
        list(dataset.examples("train"))


def test_a_bad_line_does_not_take_its_id(tmp_path: Path) -> None:
    """The same id on a sound line after a bad one is no duplicate."""
    bad = {**GOOD, "question_id": 1, "question": None}
    problems: list[Problem] = []
    dataset = written(tmp_path, bad, {**GOOD, "question_id": 1})
    assert len(list(dataset.examples("train", problems))) == 1
    assert len(problems) == 1


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe\n")
    with pytest.raises(DatasetError, match=r"train.jsonl:2: byte 0 of the line is not UTF-8"):
        list(Jsonl(tmp_path).examples("train"))
