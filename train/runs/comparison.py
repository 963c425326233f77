"""Two runs side by side: settings that differ, curves, and whether one is really better.

Both runs answer the same questions, so it is their differences, question by question, whose mean is
judged, with an interval that takes the questions of one image for one observation. Whatever `other`
means to a run, both are judged by one rule: a prediction is right where its text is that of the
majority answer.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from train.config.keys import flatten
from train.errors import TrainError
from train.loop.layout import CONFIG, RESULT
from train.metrics.clustered import clustered_interval
from train.runs.answered import Answered, read_predictions
from train.runs.registry import Registry

FEW_IMAGES = 30  # below, the interval itself is rough
RULE = "right where the text is that of the majority answer"


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
    (ids, _), (other_ids, _) = (read_predictions(path, split) for path in (a, b))
    if ids != other_ids:
        common = len(set(ids) & set(other_ids))
        raise TrainError(
            f"different question sets: {split} has {len(ids):,} questions in {a.name}, "
            f"{len(other_ids):,} in {b.name}, {common:,} of them the same in both; compare runs "
            "with the same dataset, data_seed and usable examples"
        )
    runs = [
        Answered(cache, path, result, split) for path, result in zip((a, b), results, strict=True)
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


def _common_split(results: list[dict[str, Any]]) -> str:
    tests = [result["metrics"].get("test") for result in results]
    if all(test and test["accuracy"] is not None for test in tests):
        return "test"
    return str(results[0]["best"]["split"])


def _result(run: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads((run / RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainError(f"{run.name} is not finished: no predictions to compare") from None
    return result


def _config(run: Path) -> dict[str, Any]:
    return tomllib.loads((run / CONFIG).read_text(encoding="utf-8"))
