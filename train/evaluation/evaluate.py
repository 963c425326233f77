"""Figures and predictions of a part, from what a model says about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from train.engine.outputs import Outputs, evaluated
from train.inputs.parts import Part
from train.inputs.vocabulary import Vocabulary
from train.metrics.classification import (
    METRICS,
    TOP,
    Evaluated,
    NotComputable,
    accuracy_by_type,
    compute,
)
from train.metrics.wups import THRESHOLDS, mean_wups

Prediction = dict[str, int | str]
FAILED_ITEM = "an item failed in stage 1 or is missing"
NOT_FINITE = "the model's output is not finite"


def always(part: Part, answer: int) -> Outputs:
    """Outputs of a model that always gives the same answer, without logits."""
    n = len(part)
    no, yes = np.zeros(n, dtype=bool), np.ones(n, dtype=bool)
    return Outputs(np.full(n, answer), np.full(n, np.nan), no, yes)


def measure(
    part: Part,
    outputs: Outputs,
    vocabulary: Vocabulary,
    names: Iterable[str] = METRICS,
    *,
    zero_division: float = 0.0,
    wordnet: str | None = None,
) -> dict[str, Any]:
    """`metrics.<split>` of a result: values (None where there is none), reasons, n, and accuracy
    by question and answer type where the dataset has types.

    Args:
        wordnet: the folder of WordNet's files, for WUPS.
    """
    record = replace(evaluated(part, outputs, len(vocabulary)), zero_division=zero_division)
    values, reasons = compute(record, names)
    near, why = _wups(part, record, vocabulary, wordnet)
    split, chosen = part.joined.split, part.joined.kept[part.answered]
    return {
        **values,
        **near,
        "accuracy_se_method": "clustered by image",
        "n": len(chosen),
        "n_left_out": part.left_out,
        "n_predicted": int(outputs.finite.sum()),
        "n_questions": len(record.all_predicted),
        "other_policy": vocabulary.other,
        "by_answer_type": _by_type(record, split.answer_type[chosen], split.answer_types),
        "by_question_type": _by_type(record, split.question_type[chosen], split.question_types),
        "reasons": {**reasons, **why},
    }


def _wups(
    part: Part, record: Evaluated, vocabulary: Vocabulary, wordnet: str | None
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Values of WUPS, and the reasons where there are none."""
    split, chosen = part.joined.split, part.joined.kept[part.answered]
    try:
        if record.not_finite:
            raise NotComputable(f"{record.not_finite:,} outputs of the model are not finite")
        predicted = [vocabulary.answers[number] for number in record.predicted.tolist()]
        truths = [vocabulary.form(split.answer_texts[c]) for c in split.answer[chosen].tolist()]
        return dict(mean_wups(predicted, truths, wordnet)), {}
    except NotComputable as reason:
        return dict.fromkeys(THRESHOLDS), dict.fromkeys(THRESHOLDS, str(reason))


def _by_type(
    record: Evaluated, codes: npt.NDArray[np.int32], names: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    return {} if record.not_finite else accuracy_by_type(record.correct, codes, names)


@dataclass(frozen=True)
class Predictions:
    """An answer for every question of a part's split or tenth, in its order.

    Attributes:
        answers: VQA results format.
        substitutes: those that are no prediction but the most frequent answer of train, each with
            the `reason`.
        table: for people: a header, and per question its id, the id of its first image, its text,
            and the most probable answers with their probabilities; of a substitute the answer only.
    """

    answers: list[Prediction]
    substitutes: list[Prediction]
    table: list[list[int | str]]


def predictions(part: Part, outputs: Outputs, vocabulary: Vocabulary) -> Predictions:
    """What a run writes down about a part; `outputs` with the most probable answers."""
    left_out, kept = part.joined.left_out, part.joined.kept
    instead = vocabulary.answers[part.most_frequent]
    why: dict[int, str] = dict.fromkeys(left_out.tolist(), FAILED_ITEM)
    why |= dict.fromkeys(kept[~outputs.finite].tolist(), NOT_FINITE)
    own = dict(zip(kept.tolist(), outputs.predicted.tolist(), strict=True))
    examples = sorted([*kept.tolist(), *left_out.tolist()])
    ids = part.joined.split.question_id[examples].tolist()
    answers = [
        {"question_id": question_id, "answer": instead if e in why else vocabulary.answers[own[e]]}
        for e, question_id in zip(examples, ids, strict=True)
    ]
    substitutes = [
        {**row, "reason": why[e]} for e, row in zip(examples, answers, strict=True) if e in why
    ]
    return Predictions(answers, substitutes, _table(part, outputs, vocabulary, answers, why))


def _table(
    part: Part,
    outputs: Outputs,
    vocabulary: Vocabulary,
    answers: Sequence[Prediction],
    substituted: Mapping[int, str],
) -> list[list[int | str]]:
    assert outputs.top is not None
    split, kept = part.joined.split, part.joined.kept
    header = [f"{what}_{n}" for n in range(1, TOP + 1) for what in ("answer", "probability")]
    rows: list[list[int | str]] = [["question_id", "image", "question", *header]]
    place = {example: number for number, example in enumerate(kept.tolist())}
    examples = sorted([*place, *part.joined.left_out.tolist()])
    images, texts = split.image_id[examples].tolist(), list(split.question_texts)
    for example, image, row in zip(examples, images, answers, strict=True):
        cells: list[int | str] = [row["answer"]]
        if example not in substituted:
            classes = outputs.top.answers[place[example]].tolist()
            shares = outputs.top.probabilities[place[example]].tolist()
            both = zip(classes, shares, strict=True)
            cells = [cell for c, p in both for cell in (vocabulary.answers[c], f"{p:.6g}")]
        cells += [""] * (len(header) - len(cells))
        question = texts[split.question_positions[example]]
        rows.append([row["question_id"], image, question, *cells])
    return rows
