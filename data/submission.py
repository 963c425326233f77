"""A run's predictions in the form that a dataset's official evaluator or server loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.example import Dataset, DatasetError, Problem
from data.json_file import read_json

VQA = ("question_id", "answer")
# what an evaluator calls a prediction's id and its answer
KEYS: Mapping[str, tuple[str, str]] = {
    "vizwiz": ("image", "answer"),
    "gqa": ("questionId", "prediction"),
    "gqa_all": ("questionId", "prediction"),
}
_NAMED = 5  # ids in a message


def submission(name: str, dataset: Dataset, split: str, predictions: Path) -> list[dict[str, Any]]:
    """One entry for every question of a split, in the dataset's order and type of id.

    Args:
        name: whose evaluator; one that is not in KEYS has VQA's form.
        predictions: a list of {"question_id", "answer"}, as a run writes it.

    Raises:
        DatasetError: no such list, a question without an answer or an answer without a question:
            evaluators refuse a file with either.
    """
    answers = read_answers(predictions)
    id_key, answer_key = KEYS.get(name, VQA)
    problems: list[Problem] = []
    ids = [example.question_id for example in dataset.examples(split, problems)]
    missing = [str(one) for one in ids if str(one) not in answers]
    unknown = sorted(set(answers) - set(map(str, ids)))
    for what, wrong in (
        ("questions without an answer", missing),
        ("unknown question ids", unknown),
    ):
        if wrong:
            more = ", …" if len(wrong) > _NAMED else ""
            raise DatasetError(
                f"{predictions}: {len(wrong):,} {what} ({', '.join(wrong[:_NAMED])}{more}); "
                f"expected one answer for each of {len(ids):,} questions of {split} in "
                f"{dataset.root}"
            )
    return [{id_key: one, answer_key: answers[str(one)]} for one in ids]


def read_answers(path: Path) -> dict[str, str]:
    """Answer by question id, as a text, of a run's predictions. Raises DatasetError."""
    rows = read_json(path, "a list of objects with question_id and answer")
    found: dict[str, str] = {}
    for place, row in enumerate(rows if isinstance(rows, list) else [rows]):
        if not isinstance(row, dict) or not set(VQA) <= set(row):
            shown = json.dumps(row)[:80]
            raise DatasetError(f"{path}: entry {place} is {shown}, expected question_id and answer")
        key = str(row["question_id"])
        if key in found:
            raise DatasetError(f"{path}: question id {key} occurs twice, expected once")
        if not isinstance(row["answer"], str):
            raise DatasetError(f"{path}: answer of question {key} is no text")
        found[key] = row["answer"]
    return found
