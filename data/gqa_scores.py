"""GQA's own figures of predictions: what its evaluator prints beside accuracy (Hudson and Manning
2019, arXiv 1902.09506).

- validity, plausibility: share of answers among the valid or plausible ones of their question, in
  `<split>_choices.json`; "color", "material" and "shape" where the question asks what is common.
- consistency: of each question that is answered right and entails others, the share of these that
  is answered right, and the mean of that. It needs answers to all of them, which are in `gqa_all`.
- distribution: chi-square of how often answers are predicted against how often they are true, by
  global group, each weighted by its questions; lower is better.

Only balanced questions count; the entailed ones may be others. Grounding needs attention maps, and
is not computed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.example import DatasetError
from data.gqa import Gqa
from data.json_file import read_json
from data.records import shown
from data.submission import read_answers

_COMMON = ("color", "material", "shape")
_FOLDERS = ("", "eval", "questions", "questions1.2")


def gqa_scores(dataset: Gqa, split: str, predictions: Path) -> dict[str, Any]:
    """Figures by name, None where one cannot be computed, and `reasons`.

    Raises:
        DatasetError: a file is missing or malformed, or a balanced question has no prediction.
    """
    answers = read_answers(predictions)
    questions = dict(_questions(dataset, split))
    balanced = {key: one for key, one in questions.items() if one.get("isBalanced") is not False}
    if missing := [key for key in balanced if key not in answers]:
        raise DatasetError(
            f"{predictions}: {len(missing):,} questions without an answer ({missing[0]}, …); "
            f"expected one for each of {len(balanced):,} balanced questions of {split} in "
            f"{dataset.root}"
        )
    right = {key: answers[key] == one["answer"] for key, one in balanced.items()}
    is_open = {key: _types(one).get("structural") == "query" for key, one in balanced.items()}
    found: dict[str, Any] = {
        "accuracy": _mean(right.values()),
        "binary": _mean(ok for key, ok in right.items() if not is_open[key]),
        "open": _mean(ok for key, ok in right.items() if is_open[key]),
        "distribution": _distribution(balanced, answers),
        "n": len(balanced),
    }
    reasons = {}
    for name, compute in (
        ("consistency", lambda: _consistency(balanced, questions, answers)),
        ("validity", lambda: _among("valid", balanced, answers, dataset, split)),
        ("plausibility", lambda: _among("plausible", balanced, answers, dataset, split)),
    ):
        try:
            found[name] = compute()
        except LookupError as reason:
            found[name], reasons[name] = None, str(reason.args[0])
    return {**found, "reasons": reasons}


def _questions(dataset: Gqa, split: str) -> Any:
    if not dataset.annotated(split):
        raise DatasetError(f"dataset {dataset.name}: {split} has no answers to compare with")
    for where, (key, entry) in dataset.rows(split):
        if not isinstance(entry, dict) or not isinstance(entry.get("answer"), str):
            raise DatasetError(f"{where} is {shown(entry)}, expected an object with an answer")
        yield key, entry


def _types(question: Mapping[str, Any]) -> Mapping[str, Any]:
    types = question.get("types")
    return types if isinstance(types, dict) else {}


def _mean(values: Any) -> float | None:
    listed = [float(value) for value in values]
    return sum(listed) / len(listed) if listed else None


def _consistency(
    balanced: Mapping[str, Any], questions: Mapping[str, Any], answers: Mapping[str, str]
) -> float | None:
    shares, unknown = [], set[str]()
    for key, question in balanced.items():
        named = question.get("entailed")
        others = [one for one in named or () if one != key] if isinstance(named, list) else []
        absent = {str(one) for one in others if one not in questions or one not in answers}
        unknown |= absent
        if answers[key] == question["answer"] and others and not absent:
            shares.append(_mean(answers[one] == questions[one]["answer"] for one in others))
    if unknown:
        raise LookupError(
            f"{len(unknown):,} entailed questions have no answer; predict gqa_all, which has them"
        )
    return _mean(shares)


def _among(
    kind: str, balanced: Mapping[str, Any], answers: Mapping[str, str], dataset: Gqa, split: str
) -> float | None:
    name = f"{split}_choices.json"
    paths = [dataset.root / folder / name for folder in _FOLDERS]
    path = next((one for one in paths if one.is_file()), None)
    if path is None:
        raise LookupError(f"no {name} in {dataset.root} or its folder eval")
    expected = 'an object of question id -> {"valid": […], "plausible": […]}'
    choices = read_json(path, expected)
    inside = []
    for key, question in balanced.items():
        own = choices.get(key) if isinstance(choices, dict) else None
        allowed = own.get(kind) if isinstance(own, dict) else None
        if "Common" in str(_types(question).get("detailed")):
            allowed = list(_COMMON)
        if not isinstance(allowed, list):
            raise DatasetError(f"{path}: question {key} is {shown(own)}; expected {expected}")
        inside.append(answers[key] in allowed)
    return _mean(inside)


def _distribution(balanced: Mapping[str, Any], answers: Mapping[str, str]) -> float | None:
    gold: dict[str, Counter[str]] = defaultdict(Counter)
    predicted: dict[str, Counter[str]] = defaultdict(Counter)
    for key, question in balanced.items():
        groups = question.get("groups")
        group = groups.get("global") if isinstance(groups, dict) else None
        if isinstance(group, str):
            gold[group][question["answer"]] += 1
            predicted[group][answers[key]] += 1
    scores = [
        own.total() * sum((predicted[group][text] - n) ** 2 / n for text, n in own.items())
        for group, own in gold.items()
    ]
    total = sum(own.total() for own in gold.values())
    return sum(scores) / total if total else None
