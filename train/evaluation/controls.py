"""What shows how much the image adds, without training anew: part of a result's `baselines`.

- `question_type_prior`, `question_lookup`: the most frequent answer that train has for the type of
  the question, or for its very text; where it has none, its most frequent answer.
- `shuffled_pairs`: the run's own model, given the image of another question of the same text
  instead of its own; questions whose text occurs once change images among themselves. What is lost
  is what the right image adds beyond the question: the `visual_gain` of each split, with its 95 %
  interval, clustered by image.
- `light_probe`: ridge regression on the run's own inputs, see `train.evaluation.probe`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from train.config.schema import Config
from train.config.seeds import derive_seed
from train.engine.outputs import Outputs, evaluated, run_model
from train.errors import TrainError
from train.evaluation.baselines import by_split, why_none
from train.evaluation.evaluate import always
from train.evaluation.probe import light_probe
from train.inputs.load import TrainingData
from train.inputs.parts import Part
from train.inputs.tables import modality_of
from train.metrics.clustered import clustered_interval

Whole = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Figures = dict[str, dict[str, float | None]]


def run_controls(
    config: Config,
    data: TrainingData,
    model: nn.Module,
    outputs: Mapping[str, Outputs],
    stopping: Callable[[], bool],
) -> dict[str, Any]:
    """name -> split -> accuracy, accuracy_se, n and more; None with a reason where one does not
    apply.

    Args:
        outputs: the model's for every part but train.
    """
    made: dict[str, Callable[[], Figures]] = {
        "question_type_prior": lambda: _looked_up(data, _types),
        "question_lookup": lambda: _looked_up(data, _texts),
        "shuffled_pairs": lambda: _shuffled(config, data, model, outputs, stopping),
        "light_probe": lambda: by_split(data, light_probe(config, data, stopping)),
    }
    why = why_none(config)
    if why is not None:
        return {**dict.fromkeys(made), "reasons": dict.fromkeys(made, why)}
    found: dict[str, Any] = {}
    reasons = {}
    for name, make in made.items():
        try:
            found[name] = make()
        except TrainError as error:
            found[name], reasons[name] = None, str(error)
    return {**found, "reasons": reasons}


# ---------------------------------------------------------------- answers that train has


def _types(part: Part) -> list[str]:
    """Each example's question type."""
    split = part.joined.split
    codes = split.question_type[part.joined.kept]
    if (codes < 0).all():
        raise TrainError("the dataset has no question types")
    return [*np.array([*split.question_types, ""], dtype=object)[codes]]


def _texts(part: Part) -> list[str]:
    """Each example's question."""
    texts = np.array([*part.joined.split.question_texts], dtype=object)
    return [*texts[part.joined.questions]]


def _looked_up(data: TrainingData, keys: Callable[[Part], list[str]]) -> Figures:
    train = data.parts["train"]
    inside = train.truth.numpy()
    counts: dict[str, Counter[int]] = {}
    for key, truth in zip(keys(train), inside.tolist(), strict=True):
        if 0 <= truth < len(data.vocabulary):
            counts.setdefault(key, Counter())[truth] += 1
    # of equally frequent ones the first class, as everywhere
    best = {key: min(own, key=lambda c: (-own[c], c)) for key, own in counts.items()}

    def guess(part: Part) -> Outputs:
        guesses = [best.get(key, train.most_frequent) for key in keys(part)]
        return replace(always(part, 0), predicted=np.array(guesses, dtype=np.int64))

    return by_split(data, guess)


# ---------------------------------------------------------------- other images


def _shuffled(
    config: Config,
    data: TrainingData,
    model: nn.Module,
    outputs: Mapping[str, Outputs],
    stopping: Callable[[], bool],
) -> Figures:
    images = [name for name in data.tables if modality_of(name) == "image"]
    if not images or len(images) == len(data.tables):
        raise TrainError("the experiment does not see both image and question")
    figures: Figures = {}

    def shuffled(part: Part) -> Outputs:
        order = partners(
            part.joined.questions, derive_seed(config.data_seed, "shuffled", part.name)
        )
        chosen = torch.from_numpy(order)
        others = {name: part.items[name].select(chosen) for name in images}
        given = replace(part, items={**part.items, **others})
        found = run_model(
            model, given, data.tables, data.precision,
            temperature=config.temperature, stopping=stopping,
        )  # fmt: skip
        figures[part.name] = _gain(data, part, outputs[part.name], found)
        return found

    return {name: {**own, **figures[name]} for name, own in by_split(data, shuffled).items()}


def _gain(data: TrainingData, part: Part, own: Outputs, other: Outputs) -> dict[str, float | None]:
    right, instead = (evaluated(part, one, len(data.vocabulary)) for one in (own, other))
    if right.not_finite or instead.not_finite or len(np.unique(right.image)) < 2:
        return dict.fromkeys(("visual_gain", "visual_gain_low", "visual_gain_high"))
    return {**visual_gain(right.correct, instead.correct, right.image)}


def visual_gain(right: Flags, instead: Flags, image: Whole) -> dict[str, float]:
    """What n right images add, with its 95 % interval.

    Args:
        right, instead: whether an example is answered right with its image, and with another.
        image: examples of one image share a number.
    """
    lost = right.astype(np.float64) - instead
    low, high = clustered_interval(lost, image)
    return {"visual_gain": float(lost.mean()), "visual_gain_low": low, "visual_gain_high": high}


def partners(questions: Whole, seed: int) -> Whole:
    """For each of n examples another one [n], a permutation: of the same question where that occurs
    more than once, otherwise among those that occur once. Nobody is its own partner unless it is
    alone."""
    _, group, count = np.unique(questions, return_inverse=True, return_counts=True)
    group = np.where(count[group] > 1, group, -1)
    drawn = np.random.default_rng(seed).permutation(len(questions))
    ranked = drawn[np.argsort(group[drawn], kind="stable")]
    if not len(ranked):
        return ranked
    own = group[ranked]
    first = np.flatnonzero(np.append(True, own[1:] != own[:-1]))
    following = np.append(ranked[1:], -1)
    following[np.append(first[1:], len(ranked)) - 1] = ranked[first]
    order = np.empty(len(questions), dtype=np.int64)
    order[ranked] = following
    return order
