"""Two runs side by side: settings that differ, curves, and whether one is really better.

Both runs answer the same questions, so it is their differences, question by question, whose mean is
judged, with an interval that takes the questions of one image for one observation. Whatever `other`
means to a run, both are judged by one rule: a prediction is right where its text is that of the
majority answer.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from train.config.keys import flatten
from train.errors import TrainError
from train.loop.layout import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    DESCRIPTION,
    PREDICTIONS,
    RESULT,
    SUBSTITUTES,
)
from train.metrics.clustered import clustered_interval
from train.runs.registry import Registry

FEW_IMAGES = 30  # below, the interval itself is rough
RULE = "right where the text is that of the majority answer"
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Difference:
    """Accuracy of `b` less that of `a` on the same questions.

    Attributes:
        low, high: 95 % interval of the difference, see `train.metrics.clustered`.
        n: questions that both answered and that have an answer; images: of so many images.
        rule: when a prediction counts as right, for both alike.
    """

    split: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    n: int
    images: int
    rule: str


def differing_settings(registry: Registry, a: str, b: str) -> dict[str, tuple[Any, Any]]:
    """Keys of the configs that differ, with both values (None where a run lacks the key), and
    `data` and `code` where their digests differ."""
    configs = [flatten(_config(registry.runs / run)) for run in (a, b)]
    digests = [
        dict(registry.db.execute("SELECT data, code FROM runs WHERE run = ?", [run]).fetchone())
        for run in (a, b)
    ]
    first, second = configs[0] | digests[0], configs[1] | digests[1]
    return {
        key: (first.get(key), second.get(key))
        for key in {**first, **second}
        if first.get(key) != second.get(key)
    }


def curves(registry: Registry, run: str) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(part, metric) -> [(epoch, value), …] of a run."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    rows = registry.db.execute(
        "SELECT part, name, epoch, value FROM metrics"
        " WHERE run = (SELECT id FROM runs WHERE run = ?) AND value IS NOT NULL"
        " ORDER BY part, name, step",
        [run],
    )
    for part, name, epoch, value in rows:
        found.setdefault((part, name), []).append((epoch, value))
    return found


def compare_accuracy(a: Path, b: Path, cache: Path, *, split: str | None = None) -> Difference:
    """The difference between two finished runs.

    Args:
        split: a part that both predicted; None: test where both can be judged on it, else the
            part that selected a's epochs.

    Raises:
        TrainError: a run is unfinished, the runs answered different questions, all of them are of
            one image, or the cache does not hold the answers that they were judged by.
    """
    results = [_result(path) for path in (a, b)]
    datasets = [result["dataset"] for result in results]
    if datasets[0] != datasets[1]:
        raise TrainError(
            f"different question sets: {a.name} is on {datasets[0]}, {b.name} on {datasets[1]}"
        )
    split = split or _common_split(results)
    ids, answers = _predictions(a, split)
    other_ids, other_answers = _predictions(b, split)
    if ids != other_ids:
        common = len(set(ids) & set(other_ids))
        raise TrainError(
            f"different question sets: {split} has {len(ids):,} questions in {a.name}, "
            f"{len(other_ids):,} in {b.name}, {common:,} of them the same in both; compare runs "
            "with the same dataset, data_seed and usable examples"
        )
    runs = [
        _Answered(cache, path, result, split, ids, own)
        for path, result, own in zip((a, b), results, (answers, other_answers), strict=True)
    ]
    counted = runs[0].counted & runs[1].counted
    if not counted.any():
        raise TrainError(f"{split}: no question has an answer that counts in both runs")
    normalised = any(run.vocabulary.normalised for run in runs)
    right = [run.right_by_text(normalised)[counted] for run in runs]
    image = runs[0].image[counted]
    gain = right[1].astype(np.int64) - right[0]
    images = len(np.unique(image))
    if images < 2:
        raise TrainError(
            f"{split}: all {len(gain):,} questions are of one image; expected 2 images at least, "
            "an interval is between images"
        )
    low, high = clustered_interval(gain, image)
    return Difference(
        split=split,
        a=float(right[0].mean()),
        b=float(right[1].mean()),
        difference=float(gain.mean()),
        low=low,
        high=high,
        n=len(gain),
        images=images,
        rule=f"{RULE}, both normalised" if normalised else RULE,
    )


class _Answered:
    """What a run answered, beside the answers that the cache holds.

    Attributes:
        counted: bool [n], questions with an answer that the model itself answered.
        image: int64 [n], questions of one image share a number.
    """

    def __init__(
        self,
        cache: Path,
        run: Path,
        result: Mapping[str, Any],
        split: str,
        ids: list[int | str],
        answers: list[str],
    ) -> None:
        """Raises TrainError where the accuracy is not the one that was recorded."""
        import vqa_cache
        from train.inputs.parts import image_groups
        from train.inputs.vocabulary import Vocabulary

        self.answers = answers
        held_out = result["best"].get("held_out_of_train") and split == result["best"]["split"]
        name = f"{result['dataset']}/{'train' if held_out else split}"
        examples = vqa_cache.open(cache).split(name)
        place = {key: number for number, key in enumerate(examples.question_id.tolist())}
        missing = [key for key in ids if key not in place]
        if missing or len(set(ids)) != len(ids):
            what = f"lacks question {missing[0]}" if missing else "has the same id twice"
            raise TrainError(f"{cache}: {name} {what}; expected the cache that {run.name} used")
        rows = np.array([place[key] for key in ids])
        described = json.loads((run / CHECKPOINTS / BEST / DESCRIPTION).read_text(encoding="utf-8"))
        metrics = result["metrics"][split]
        self.vocabulary = Vocabulary(
            tuple(described["answers"]), described["answers_normalised"], metrics["other_policy"]
        )
        self._texts, self._answer = examples.answer_texts, examples.answer[rows]
        self.image = image_groups(examples)[rows]
        self.counted = (self._answer >= 0) & ~np.isin(ids, list(_substituted(run, split)))
        self._check(run, split, metrics)

    def _check(self, run: Path, split: str, metrics: Mapping[str, Any]) -> None:
        """The cache is the one that the run was measured on: by the run's own rule."""
        if metrics["accuracy"] is None:
            why = metrics["reasons"]["accuracy"]
            raise TrainError(f"{run.name}: has no accuracy on {split}: {why}")
        truth = self.vocabulary.truths(self._answer, self._texts)
        counted = self.counted.copy()
        if self.vocabulary.other == "drop":
            counted &= truth < len(self.vocabulary)
        classes = {text: number for number, text in enumerate(self.vocabulary.answers)}
        found = np.array([classes[answer] for answer in self.answers]) == truth
        accuracy = float(found[counted].mean())
        if not abs(accuracy - metrics["accuracy"]) <= _TOLERANCE:
            raise TrainError(
                f"{run.name}: accuracy on {split} is {metrics['accuracy']} in its result, "
                f"{accuracy:.4f} by the answers of this cache; expected the cache that it was "
                "trained on (--cache)"
            )

    def right_by_text(self, normalised: bool) -> npt.NDArray[np.bool_]:
        """bool [n]."""
        from train.inputs.vocabulary import Vocabulary

        form = Vocabulary((), normalised).form
        texts = [form(text) for text in self._texts]
        pairs = zip(self.answers, self._answer.tolist(), strict=True)
        return np.array([code >= 0 and form(answer) == texts[code] for answer, code in pairs])


def _common_split(results: list[dict[str, Any]]) -> str:
    tests = [result["metrics"].get("test") for result in results]
    if all(test and test["accuracy"] is not None for test in tests):
        return "test"
    return str(results[0]["best"]["split"])


def _predictions(run: Path, split: str) -> tuple[list[int | str], list[str]]:
    path = run / PREDICTIONS.format(split=split)
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = sorted(p.name.split(".")[1] for p in run.glob("predictions.*.json"))
        raise TrainError(
            f"{run.name}: no predictions for split {split!r}; it has: {', '.join(there) or 'none'}"
        ) from None
    return [row["question_id"] for row in rows], [row["answer"] for row in rows]


def _substituted(run: Path, split: str) -> set[int | str]:
    """Questions that the model did not answer, since an item of theirs failed."""
    path = run / SUBSTITUTES.format(split=split)
    if not path.is_file():
        return set()
    return {row["question_id"] for row in json.loads(path.read_text(encoding="utf-8"))}


def _result(run: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads((run / RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainError(f"{run.name} is not finished: no predictions to compare") from None
    return result


def _config(run: Path) -> dict[str, Any]:
    return tomllib.loads((run / CONFIG).read_text(encoding="utf-8"))
