"""Two runs side by side: settings that differ, curves, and whether one is really better.

The difference in accuracy is judged by a paired bootstrap (Efron and Tibshirani, An Introduction to
the Bootstrap, 1993, chapter 13): both runs answer the same questions, whole images are drawn again
with replacement, because questions of one image are not independent.
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
from train.loop.layout import BEST, CHECKPOINTS, CONFIG, DESCRIPTION, RESULT
from train.runs.registry import Registry

RESAMPLES = 10_000
_DRAWN_TOGETHER = 4_000_000  # drawn images held at a time
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Difference:
    """Accuracy of `b` less that of `a` on the same questions.

    Attributes:
        low, high: 95 % interval of the difference.
        n: questions; images: groups that were drawn.
    """

    split: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    n: int
    images: int
    resamples: int


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


def compare_accuracy(
    a: Path, b: Path, cache: Path, *, split: str | None = None, resamples: int = RESAMPLES
) -> Difference:
    """The paired bootstrap of two finished runs.

    Args:
        split: a part that both predicted; None: test where both can be judged on it, else the
            part that selected a's epochs.

    Raises:
        TrainError: a run is unfinished, the runs answered different questions, or the cache does
            not hold the answers that they were judged by.
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
    judges = [
        _Judge(cache, path, result, split, ids)
        for path, result in zip((a, b), results, strict=True)
    ]
    right = [judges[0].right(answers), judges[1].right(other_answers)]
    counted = judges[0].counted & judges[1].counted
    if not counted.any():
        raise TrainError(f"{split}: no question has an answer that counts in both runs")
    _, image = np.unique(judges[0].image[counted], return_inverse=True)
    gain = right[1][counted].astype(np.int64) - right[0][counted]
    low, high = bootstrap_interval(gain, image, resamples=resamples)
    return Difference(
        split=split,
        a=float(right[0][counted].mean()),
        b=float(right[1][counted].mean()),
        difference=float(gain.mean()),
        low=low,
        high=high,
        n=len(gain),
        images=int(image.max()) + 1,
        resamples=resamples,
    )


def bootstrap_interval(
    gain: npt.NDArray[np.int64], image: npt.NDArray[np.int64], *, resamples: int, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean of `gain` [n], images drawn with replacement.

    Args:
        image: int64 [n], 0 to G - 1.
    """
    sums, counts = np.bincount(image, weights=gain), np.bincount(image)
    draw = np.random.default_rng(seed)
    means = np.empty(resamples)
    together = max(1, _DRAWN_TOGETHER // len(sums))
    for first in range(0, resamples, together):
        rows = min(together, resamples - first)
        drawn = draw.integers(0, len(sums), (rows, len(sums)), dtype=np.int32)
        means[first : first + rows] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


class _Judge:
    """Which predictions of a part are right, as the run itself counted."""

    def __init__(
        self, cache: Path, run: Path, result: Mapping[str, Any], split: str, ids: list[int | str]
    ) -> None:
        import vqa_cache
        from train.inputs.parts import image_groups
        from train.inputs.vocabulary import Vocabulary

        self.run, self.result, self.part = run, result, split
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
        policy = result["metrics"][split]["other_policy"]
        vocabulary = Vocabulary(
            tuple(described["answers"]), described["answers_normalised"], policy
        )
        self.classes = {text: number for number, text in enumerate(vocabulary.answers)}
        self.truth = vocabulary.truths(examples.answer[rows], examples.answer_texts)
        self.image = image_groups(examples)[rows]
        self.counted = self.truth >= 0
        if policy == "drop":
            self.counted &= self.truth < len(vocabulary)

    def right(self, answers: list[str]) -> npt.NDArray[np.bool_]:
        """bool [n]. Raises TrainError where the accuracy is not the one that was recorded."""
        found: npt.NDArray[np.bool_] = np.array([self.classes[a] for a in answers]) == self.truth
        accuracy = self.result["metrics"][self.part]["accuracy"]
        if accuracy is None or abs(found[self.counted].mean() - accuracy) > _TOLERANCE:
            raise TrainError(
                f"{self.run.name}: accuracy on {self.part} is {accuracy} in its result, "
                f"{found[self.counted].mean():.4f} by the answers of this cache; expected the "
                "cache that it was trained on (--cache)"
            )
        return found


def _common_split(results: list[dict[str, Any]]) -> str:
    tests = [result["metrics"].get("test") for result in results]
    if all(test and test["accuracy"] is not None for test in tests):
        return "test"
    return str(results[0]["best"]["split"])


def _predictions(run: Path, split: str) -> tuple[list[int | str], list[str]]:
    path = run / f"predictions.{split}.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = sorted(p.name.split(".")[1] for p in run.glob("predictions.*.json"))
        raise TrainError(
            f"{run.name}: no predictions for split {split!r}; it has: {', '.join(there) or 'none'}"
        ) from None
    return [row["question_id"] for row in rows], [row["answer"] for row in rows]


def _result(run: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads((run / RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainError(f"{run.name} is not finished: no predictions to compare") from None
    return result


def _config(run: Path) -> dict[str, Any]:
    return tomllib.loads((run / CONFIG).read_text(encoding="utf-8"))
