"""Two runs, or two groups of seeds, side by side: settings that differ, curves, and whether one is
really better.

Both answer the same questions, so it is their differences, question by question, whose mean is
judged, with an interval that takes the questions of one image for one observation, and that is
wider where seeds differ. Whatever `other` means to a run, all are judged by one rule: a prediction
is right where its text is that of the majority answer.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from train.config.keys import flatten
from train.config.schema import WITHOUT_EFFECT
from train.errors import TrainError
from train.loop.layout import CONFIG, RESULT
from train.metrics.clustered import seeded_interval
from train.runs.answered import Answered, read_predictions
from train.runs.registry import Registry
from train.runs.select import named_runs

_NAMED = 5
FEW_IMAGES = 30  # below, the interval itself is rough
RULE = "right where the text is that of the majority answer"


@dataclass(frozen=True)
class Difference:
    """Accuracy of `b` less that of `a` on the same questions, each the mean over its seeds.

    Attributes:
        seeds_a, seeds_b: of the runs. The same ones on both sides are judged in pairs.
        low, high: 95 % interval of the difference, see `train.metrics.clustered`.
        n: questions that both answered and that have an answer; images: of so many images.
        rule: when a prediction counts as right, for both alike.
    """

    split: str
    seeds_a: list[int]
    seeds_b: list[int]
    a: float
    b: float
    difference: float
    low: float
    high: float
    n: int
    images: int
    rule: str


@dataclass(frozen=True)
class Both:
    """Which of n questions each run answered rightly.

    Attributes:
        a, b: float64 [runs, n], 1 or 0, the runs in the order of `seeds_a` and `seeds_b`.
        image: int64 [n], questions of an image share a number.
        normalised: whether texts were compared in normalised form.
    """

    split: str
    a: npt.NDArray[np.float64]
    b: npt.NDArray[np.float64]
    seeds_a: list[int]
    seeds_b: list[int]
    image: npt.NDArray[np.int64]
    normalised: bool

    @property
    def seed_means(self) -> list[npt.NDArray[np.float64]]:
        """What varies with the seed alone: paired differences where both sides have the same
        seeds, otherwise each side's accuracies."""
        one, other = self.a.mean(axis=1), self.b.mean(axis=1)
        if sorted(self.seeds_a) != sorted(self.seeds_b):
            return [one, other]
        return [other[np.argsort(self.seeds_b)] - one[np.argsort(self.seeds_a)]]


def find_group(registry: Registry, text: str) -> list[str]:
    """The run that a path, an id or a unique prefix of one means, or the finished runs of an
    experiment (or of a common prefix) that differ in their seed alone, one a seed, by seed.

    Raises:
        TrainError: none is meant, or several that differ in more; the text names what.
    """
    found = named_runs(registry, text)
    if len(found) == 1:
        return found
    rows = registry.db.execute(
        f"SELECT run FROM runs WHERE status = 'finished' AND run IN ({','.join('?' * len(found))})"
        " ORDER BY began",
        found,
    )
    finished = [row[0] for row in rows]
    if not finished:
        raise TrainError(f"{text!r} means {len(found)} runs, none of which is finished")
    settings = {run: _settings(registry, run) for run in finished}
    every = dict.fromkeys(key for one in settings.values() for key in one)
    keys = [key for key in every if key not in (*WITHOUT_EFFECT, "seed")]
    differing = [key for key in keys if len({repr(s.get(key)) for s in settings.values()}) > 1]
    if differing:
        raise TrainError(
            f"{text!r} means {len(finished)} finished runs that differ in "
            f"{', '.join(differing[:_NAMED])}, not in seed alone: "
            f"{', '.join(finished[:_NAMED])}{', ...' if len(finished) > _NAMED else ''}; type more "
            "of the id"
        )
    by_seed = {settings[run]["seed"]: run for run in finished}  # of the same seed the last
    return [by_seed[seed] for seed in sorted(by_seed)]


def differing_settings(
    registry: Registry, a: Sequence[str], b: Sequence[str]
) -> dict[str, tuple[Any, Any]]:
    """Keys of the configs that differ, with both values (None where a run lacks the key), and
    `data` and `code` where their digests differ. Of a group of seeds each value is the first run's,
    and `seed` a list."""
    first, second = ({**_settings(registry, runs[0]), **_seeds(registry, runs)} for runs in (a, b))
    return {
        key: (first.get(key), second.get(key))
        for key in {**first, **second}
        if first.get(key) != second.get(key)
    }


def _seeds(registry: Registry, runs: Sequence[str]) -> dict[str, Any]:
    if len(runs) == 1:
        return {}
    return {"seed": [_settings(registry, run)["seed"] for run in runs]}


def _settings(registry: Registry, run: str) -> dict[str, Any]:
    query = "SELECT data, code FROM runs WHERE run = ?"
    digests = dict(registry.db.execute(query, [run]).fetchone())
    return flatten(_config(registry.runs / run)) | digests


def curves(
    registry: Registry, runs: Sequence[str]
) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(part, metric) -> [(epoch, value), …] of a run; of a group the mean of those runs that have
    the epoch."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    rows = registry.db.execute(
        "SELECT part, name, epoch, avg(value) FROM metrics WHERE value IS NOT NULL"
        f" AND run IN (SELECT id FROM runs WHERE run IN ({','.join('?' * len(runs))}))"
        " GROUP BY part, name, epoch ORDER BY part, name, epoch",
        list(runs),
    )
    for part, name, epoch, value in rows:
        found.setdefault((part, name), []).append((epoch, value))
    return found


def compare_accuracy(
    a: Sequence[Path], b: Sequence[Path], cache: Path, *, split: str | None = None
) -> Difference:
    """The difference between two finished runs, or two groups that differ in seed alone.

    Args:
        split: a part that all predicted; None: test where all can be judged on it, else the part
            that selected the first one's epochs.

    Raises:
        TrainError: a run is unfinished, the runs answered different questions, all of them are of
            one image, or the cache does not hold the answers that they were judged by.
    """
    both = answered_by(a, b, cache, split=split)
    difference = both.b.mean(axis=0) - both.a.mean(axis=0)
    low, high = seeded_interval(difference, both.image, both.seed_means)
    return Difference(
        split=both.split,
        seeds_a=both.seeds_a,
        seeds_b=both.seeds_b,
        a=float(both.a.mean()),
        b=float(both.b.mean()),
        difference=float(difference.mean()),
        low=low,
        high=high,
        n=len(both.image),
        images=len(np.unique(both.image)),
        rule=f"{RULE}, both normalised" if both.normalised else RULE,
    )


def answered_by(
    a: Sequence[Path], b: Sequence[Path], cache: Path, *, split: str | None = None
) -> Both:
    """What two groups of runs answered rightly. Arguments and errors as of `compare_accuracy`."""
    paths = [*a, *b]
    results = [_result(path) for path in paths]
    split = split or _common_split(results)
    _check_questions(paths, results, split)
    runs = [
        Answered(cache, path, result, split) for path, result in zip(paths, results, strict=True)
    ]
    counted = np.logical_and.reduce([run.counted for run in runs])
    if not counted.any():
        raise TrainError(f"{split}: no question has an answer that counts in both runs")
    normalised = any(run.vocabulary.normalised for run in runs)
    right = np.stack([run.right_by_text(normalised)[counted] for run in runs]).astype(np.float64)
    image = runs[0].image[counted]
    if len(np.unique(image)) < 2:
        raise TrainError(
            f"{split}: all {right.shape[1]:,} questions are of one image; expected 2 images at "
            "least, an interval is between images"
        )
    seeds = [int(result["seed"]) for result in results]
    one, other = right[: len(a)], right[len(a) :]
    return Both(split, one, other, seeds[: len(a)], seeds[len(a) :], image, normalised)


def _check_questions(paths: Sequence[Path], results: list[dict[str, Any]], split: str) -> None:
    """Raise TrainError where runs did not answer the same questions."""
    first, (ids, _) = paths[0], read_predictions(paths[0], split)
    for path, result in zip(paths[1:], results[1:], strict=True):
        if result["dataset"] != results[0]["dataset"]:
            raise TrainError(
                f"different question sets: {first.name} is on {results[0]['dataset']}, {path.name} "
                f"on {result['dataset']}"
            )
        others, _ = read_predictions(path, split)
        if ids != others:
            common = len(set(ids) & set(others))
            raise TrainError(
                f"different question sets: {split} has {len(ids):,} questions in {first.name}, "
                f"{len(others):,} in {path.name}, {common:,} of them the same in both; compare "
                "runs with the same dataset, data_seed and usable examples"
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
