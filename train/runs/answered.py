"""What a finished run answered on a split, question by question, beside the answers that a cache
holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import vqa_cache
from train.errors import TrainError
from train.inputs.parts import image_groups
from train.inputs.vocabulary import Vocabulary
from train.loop.checkpoint import read_description
from train.loop.layout import BEST, CHECKPOINTS, PREDICTIONS, SUBSTITUTES

_TOLERANCE = 1e-9


def read_predictions(run: Path, split: str) -> tuple[list[int | str], list[str]]:
    """Question ids and answers of a run's file. Raises TrainError where it has none."""
    path = run / PREDICTIONS.format(split=split)
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = sorted(p.name.split(".")[1] for p in run.glob("predictions.*.json"))
        raise TrainError(
            f"{run.name}: no predictions for split {split!r}; it has: {', '.join(there) or 'none'}"
        ) from None
    return [row["question_id"] for row in rows], [row["answer"] for row in rows]


class Answered:
    """What a run answered on a split: n questions, in the order of its file.

    Attributes:
        ids, answers: of n questions.
        examples: the split of the cache that holds them; rows: int64 [n], which of it they are.
        vocabulary: of the run.
        truth: int64 [n], see `Vocabulary.truths`.
        counted: bool [n], questions with an answer that the model itself answered.
        image: int64 [n], questions of one image share a number.
    """

    def __init__(self, cache: Path, run: Path, result: Mapping[str, Any], split: str) -> None:
        """Raises TrainError where the run has no predictions of the split, or its accuracy by this
        cache is not the one that was recorded."""
        self.ids, self.answers = read_predictions(run, split)
        held_out = result["best"].get("held_out_of_train") and split == result["best"]["split"]
        name = f"{result['dataset']}/{'train' if held_out else split}"
        self.examples = vqa_cache.open(cache).split(name)
        place = {key: number for number, key in enumerate(self.examples.question_id.tolist())}
        missing = [key for key in self.ids if key not in place]
        if missing or len(set(self.ids)) != len(self.ids):
            what = f"lacks question {missing[0]}" if missing else "has the same id twice"
            raise TrainError(f"{cache}: {name} {what}; expected the cache that {run.name} used")
        self.rows = np.array([place[key] for key in self.ids], dtype=np.int64)
        described = read_description(run / CHECKPOINTS / BEST)
        metrics = result["metrics"][split]
        self.vocabulary = Vocabulary(
            tuple(described["answers"]),
            described["answers_normalised"],
            metrics["other_policy"],
            described.get("answers_merged", {}),
        )
        self.truth = self.vocabulary.truths(self._answer, self.examples.answer_texts)
        self.image = image_groups(self.examples)[self.rows]
        self.counted = (self._answer >= 0) & ~np.isin(self.ids, list(_substituted(run, split)))
        self._check(run, split, metrics)

    @property
    def _answer(self) -> npt.NDArray[np.int32]:
        return self.examples.answer[self.rows]

    @cached_property
    def judged(self) -> npt.NDArray[np.bool_]:
        """bool [n], what the run's own accuracy counts: `counted`, and not dropped."""
        dropped = (self.truth >= len(self.vocabulary)) & (self.vocabulary.other == "drop")
        kept: npt.NDArray[np.bool_] = self.counted & ~dropped
        return kept

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        """bool [n], by the run's own rule."""
        classes = {text: number for number, text in enumerate(self.vocabulary.answers)}
        found: npt.NDArray[np.bool_] = (
            np.array([classes[answer] for answer in self.answers]) == self.truth
        )
        return found

    def _check(self, run: Path, split: str, metrics: Mapping[str, Any]) -> None:
        """The cache is the one that the run was measured on: by the run's own rule."""
        if metrics["accuracy"] is None:
            why = metrics["reasons"]["accuracy"]
            raise TrainError(f"{run.name}: has no accuracy on {split}: {why}")
        accuracy = float(self.right[self.judged].mean())
        if not abs(accuracy - metrics["accuracy"]) <= _TOLERANCE:
            raise TrainError(
                f"{run.name}: accuracy on {split} is {metrics['accuracy']} in its result, "
                f"{accuracy:.4f} by the answers of this cache; expected the cache that it was "
                "trained on (--cache)"
            )

    def right_by_text(self, normalised: bool) -> npt.NDArray[np.bool_]:
        """bool [n], whether an answer's text is that of the majority answer."""
        form = Vocabulary((), normalised).form
        texts = [form(text) for text in self.examples.answer_texts]
        pairs = zip(self.answers, self._answer.tolist(), strict=True)
        return np.array([code >= 0 and form(answer) == texts[code] for answer, code in pairs])


def _substituted(run: Path, split: str) -> set[int | str]:
    """Questions that the model did not answer, since an item of theirs failed."""
    path = run / SUBSTITUTES.format(split=split)
    if not path.is_file():
        return set()
    return {row["question_id"] for row in json.loads(path.read_text(encoding="utf-8"))}
