"""Annotations that were typed, copied or meant badly: one class an answer, one line an error."""

from __future__ import annotations

import json
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.inputs.miniatures import BUILDERS
from data.example import DatasetError, Example, Problem, majority
from data.images import ImageError, open_image
from data.registry import open_dataset

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def written(root: Path, name: str, *lines: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return root


def test_one_answer_typed_in_two_ways_is_one(tmp_path: Path) -> None:
    assert NFC != NFD
    line = {"image": "a.png", "question": NFD, "answers": ["tea", NFC, NFD], "question_type": NFD}
    root = written(tmp_path / "d", "train.jsonl", json.dumps(line))
    [example] = open_dataset("jsonl", root).examples("train")
    assert (example.answer, example.answers) == (NFC, ("tea", NFC, NFC))
    assert (example.question, example.question_type) == (NFC, NFC)
    assert majority([NFD, "tea", NFC]) == NFC
    assert Example(1, (1,), ("a",), "q", NFD).answer == NFC


def test_hidden_files_are_no_splits(tmp_path: Path) -> None:
    for name in ("train.jsonl", "._train.jsonl", ".jsonl"):
        root = written(tmp_path / "d", name, '{"image": "a.png", "question": "q"}')
    assert open_dataset("jsonl", root).splits() == ["train"]


def test_a_number_of_thousands_of_digits_is_one_line(tmp_path: Path) -> None:
    line = '{"question_id": ' + "9" * 5000 + "}"
    root = written(tmp_path / "d", "train.jsonl", line)
    with pytest.raises(DatasetError, match=r"train\.jsonl:1: a number of thousands of digits"):
        list(open_dataset("jsonl", root).examples("train"))


def test_an_eps_called_jpg_starts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with pytest.raises(ImageError, match="not an image"):
        open_image(str(path))


def test_an_id_with_a_line_break_is_told_in_one_line(tmp_path: Path) -> None:
    """In every message and problem: what was found stands there as it is, but for its breaks."""
    assert str(DatasetError("a\nb\x1b[2J\tc é")) == "a\\nb\\x1b[2J\\tc é"
    row = {"image": "a.png", "question": "q", "answer": "x", "question_id": "a\nb"}
    lines = [json.dumps(row)] * 2
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    problems: list[Problem] = []
    list(open_dataset("jsonl", tmp_path).examples("train", problems))
    [problem] = problems
    assert "question id a\\nb occurs twice" in problem.what


def test_a_damaged_page_of_parquet_is_one_line(tmp_path: Path) -> None:
    """Wherever a byte is wrong: an error of ours, or rows."""
    BUILDERS["parquet"](tmp_path)
    [path, _] = sorted((tmp_path / "data").glob("train-*.parquet"))
    content = path.read_bytes()
    told = set()
    for place in range(0, len(content), 29):
        path.write_bytes(content[:place] + b"\xff\x00\xff" + content[place + 3 :])
        try:
            for example in open_dataset("parquet", tmp_path).examples("train", []):
                with suppress(ImageError):
                    open_image(str(tmp_path / example.images[0]))
        except DatasetError as error:
            told.add(str(error).partition(": ")[2].partition(":")[0])
    assert {"not a parquet file", "cannot be read"} <= told
