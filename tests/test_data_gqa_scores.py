"""GQA's own figures, worked out by hand over six questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from data.__main__ import main


def question(answer: str, *entailed: str, **more: Any) -> dict[str, Any]:
    types = {"structural": "query", "detailed": "color"}
    given: dict[str, Any] = {
        "imageId": "n1", "question": "what?", "answer": answer, "entailed": [*entailed],
        "isBalanced": True, "groups": {"global": "color"}, "types": types,
    }  # fmt: skip
    return {**given, **more}


QUESTIONS = {
    "1": question("red", "1", "2", "3"),  # right; of what it entails 2 is right, 3 is wrong
    "2": question("yes", "1", types={"structural": "verify", "detailed": "x"}),  # right, and 1
    "3": question("no", "1", isBalanced=False),  # wrong, and does not count
    "4": question("blue", "1"),  # wrong
    "5": question("color", types={"structural": "compare", "detailed": "twoCommon"}, groups={}),
    "6": question("red", groups={"global": None}),
}
ANSWERS = {"1": "red", "2": "yes", "3": "yes", "4": "green", "5": "shape", "6": "red"}
CHOICES = {
    key: {"valid": ["red", "green", "yes"], "plausible": ["red", "yes"]} for key in QUESTIONS
}


def scored(root: Path, answers: dict[str, str], *, choices: Any = CHOICES, **more: Any) -> Result:
    questions = {**QUESTIONS, **more}
    (root / "val_all_questions.json").write_text(json.dumps(questions))
    if choices is not None:
        (root / "val_choices.json").write_text(json.dumps(choices))
    rows = [{"question_id": key, "answer": answer} for key, answer in answers.items()]
    (root / "p.json").write_text(json.dumps(rows))
    line = ["score", "gqa_all", str(root / "p.json"), "--root", str(root), "--json"]
    return CliRunner().invoke(main, line)


def test_figures_worked_out_by_hand(tmp_path: Path) -> None:
    found = json.loads(scored(tmp_path, ANSWERS).stdout)
    # color: gold red 1, yes 1, blue 1; predicted red 1, yes 1, green 1: only blue differs, by 1
    assert found == {
        "accuracy": pytest.approx(3 / 5), "binary": pytest.approx(1 / 2),
        "open": pytest.approx(2 / 3), "n": 5, "distribution": pytest.approx(1.0),
        "consistency": pytest.approx((1 / 2 + 1) / 2),
        "validity": 1.0,  # 5 may be shape, since it asks what is common
        "plausibility": pytest.approx(4 / 5), "reasons": {},
    }  # fmt: skip


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    answers = {key: text for key, text in ANSWERS.items() if key != "3"}
    found = json.loads(scored(tmp_path, answers, choices=None).stdout)
    assert found["consistency"] is None
    assert "1 entailed questions have no answer; predict gqa_all" in found["reasons"]["consistency"]
    assert "no val_choices.json in" in found["reasons"]["validity"]
    done = scored(tmp_path, {"1": "red"})
    assert done.exit_code == 1
    assert "4 questions without an answer (2, …); expected one for each of 5" in done.stderr


@pytest.mark.parametrize(
    ("choices", "more", "told"),
    [
        ({"1": {"valid": 3}}, {}, "question 1 is"),
        ([], {}, "question 1 is null"),
        (CHOICES, {"7": {"imageId": "n1", "question": "?"}}, "question 7 is"),
        (CHOICES, {"7": question("a", groups=[], types=[], entailed="1")}, None),
    ],
)
def test_malformed_files_are_one_line(
    choices: Any, more: Any, told: str | None, tmp_path: Path
) -> None:
    answers = {**ANSWERS, "7": "a"}
    done = scored(tmp_path, answers, choices={**choices, "7": CHOICES["1"]} if choices else choices,
                  **more)  # fmt: skip
    assert done.exit_code == (0 if told is None else 1)
    if told is not None:
        [line] = done.stderr.splitlines()
        assert told in line
