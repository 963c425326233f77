"""Files for evaluators: every question once, in order, with their keys and the dataset's ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks.inputs.miniatures import BUILDERS
from data.__main__ import main


def submitted(root: Path, name: str, split: str, rows: Any) -> Result:
    BUILDERS[name](root)
    (root / "predictions.json").write_text(rows if isinstance(rows, str) else json.dumps(rows))
    files = [str(root / "predictions.json"), str(root / "out.json")]
    return CliRunner().invoke(main, ["submit", name, *files, "--root", str(root), "--split", split])


@pytest.mark.parametrize(
    ("name", "split", "given", "expected"),
    [
        ("vqa2", "train", [11, 10], [
            {"question_id": 10, "answer": "b"},
            {"question_id": 11, "answer": "a"},
        ]),
        ("vizwiz", "test", ["VizWiz_test_00000000.jpg"], [
            {"image": "VizWiz_test_00000000.jpg", "answer": "a"},
        ]),
        ("gqa", "train", ["07333409", "07333408"], [
            {"questionId": "07333408", "prediction": "b"},
            {"questionId": "07333409", "prediction": "a"},
        ]),
        ("text_vqa", "test", ["5"], [{"question_id": 5, "answer": "a"}]),  # ids that became texts
    ],
)  # fmt: skip
def test_an_evaluator_finds_its_keys_ids_and_order(
    name: str, split: str, given: list[Any], expected: list[Any], tmp_path: Path
) -> None:
    rows = [{"question_id": one, "answer": "ab"[n]} for n, one in enumerate(given)]
    done = submitted(tmp_path, name, split, rows)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out.json").read_text()) == expected
    assert f"{len(expected)} answers to {split} of {name}" in done.output


ROW = {"question_id": 10, "answer": "a"}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([ROW], "1 questions without an answer (11); expected one answer for each of 2 questions"),
        (
            [ROW, {**ROW, "question_id": 11}, {**ROW, "question_id": 7}],
            "1 unknown question ids (7)",
        ),
        ([ROW, ROW], "question id 10 occurs twice, expected once"),
        ([{"question_id": 10}], 'entry 0 is {"question_id": 10}, expected question_id and answer'),
        ([{**ROW, "answer": 3}], "answer of question 10 is no text"),
        ({"a": 1}, 'entry 0 is {"a": 1}, expected question_id and answer'),
        ("[", "truncated or invalid JSON"),
    ],
)
def test_a_file_that_an_evaluator_refuses_is_one_line(rows: Any, told: str, tmp_path: Path) -> None:
    done = submitted(tmp_path, "vqa2", "train", rows)
    assert done.exit_code == 1
    [line] = done.stderr.splitlines()
    assert told in line
    assert not (tmp_path / "out.json").exists()
