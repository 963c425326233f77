"""How arms are judged and compared.

Two arms answer the same questions with the same seeds, so their differences are judged, question by
question and seed by seed: a mean, and its 95 % interval over seeds and images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.phenomena.settings import Contrast
from train.engine.outputs import evaluated, run_model
from train.inputs.load import TrainingData
from train.loop.fit import Fitted
from train.metrics.clustered import seeded_interval

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """What a trained arm said of n questions that it was not trained on.

    Attributes:
        right, cross_entropy: [n]; the latter NaN where the answer is outside the vocabulary.
        truth: int64 [n], class; C outside the vocabulary of C answers, most frequent first.
        image: int64 [n], questions of an image share a number.
        answers: C.
        parameters: that were trained.
    """

    right: Floats
    cross_entropy: Floats
    truth: npt.NDArray[np.int64]
    image: npt.NDArray[np.int64]
    answers: int
    parameters: int

    @property
    def rarest(self) -> npt.NDArray[np.bool_]:
        """Which questions have an answer of the rarest quarter of the vocabulary, bool [n]."""
        return (self.truth >= 3 * self.answers // 4) & (self.truth < self.answers)


def judge(fitted: Fitted, data: TrainingData) -> Judged:
    """Every part but train: no epoch was selected, so what would select is unseen as well."""
    columns: list[tuple[npt.NDArray[Any], ...]] = []
    images = 0
    for name, part in data.parts.items():
        if name == "train":
            continue
        outputs = run_model(fitted.model, part, data.tables, data.precision)
        said = evaluated(part, outputs, len(data.vocabulary))
        truth = np.minimum(said.truth, len(data.vocabulary))
        columns.append((said.correct, said.cross_entropy, truth, said.image + images))
        images += int(said.image.max()) + 1
    right, cross_entropy, truth, image = (
        np.concatenate(column) for column in zip(*columns, strict=True)
    )
    trained = sum(p.numel() for p in fitted.model.parameters() if p.requires_grad)
    return Judged(
        right.astype(np.float64), cross_entropy, truth, image, len(data.vocabulary), trained
    )


def accuracy(judged: Judged) -> Floats:
    """Of each question, [n]."""
    return judged.right


def recall_macro(judged: Judged) -> Floats:
    """Of each question what makes the mean over questions the macro recall over those answers of
    the vocabulary that occur, [n]."""
    occurring = np.bincount(judged.truth, minlength=judged.answers + 1)[:-1]
    classes = int((occurring > 0).sum())
    share = np.zeros(judged.answers + 1)
    share[:-1] = len(judged.truth) / (classes * np.maximum(occurring, 1))
    weighted: Floats = judged.right * share[judged.truth]
    return weighted


FIGURES: dict[str, Callable[[Judged], Floats]] = {
    "accuracy": accuracy,
    "recall_macro": recall_macro,
}
Trained = Mapping[str, Sequence[Judged]]  # arm -> one a seed


def compared(contrast: Contrast, trained: Trained) -> dict[str, Any]:
    """A contrast's difference, its interval, and the difference of each seed."""
    better, worse = (_values(arms, contrast.figure, trained) for arms in _sides(contrast))
    first = trained[contrast.better[0]][0]
    chosen = first.rarest if contrast.rarest else np.ones(len(first.right), dtype=bool)
    difference = (better - worse)[:, chosen]
    image = first.image[chosen]
    images = len(np.unique(image))
    if images < 2:
        raise click.ClickException(
            f"{contrast.better[0]} against {contrast.worse[0]}: {len(image)} questions of {images} "
            "images to compare on; expected 2 images at least: make more --images"
        )
    seeds = difference.mean(axis=1)
    low, high = seeded_interval(difference.mean(axis=0), image, [seeds])
    return {
        "figure": contrast.figure,
        "difference": float(difference.mean()),
        "interval": [low, high],
        "seeds": seeds.tolist(),
        "n": len(image),
        "images": images,
    }


def _sides(contrast: Contrast) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return contrast.better, contrast.worse


def _values(arms: Sequence[str], figure: str, trained: Trained) -> Floats:
    """[seeds, n], the mean over arms."""
    per_question = FIGURES[figure]
    values = [[per_question(judged) for judged in trained[arm]] for arm in arms]
    mean: Floats = np.asarray(values).mean(axis=0)
    return mean


def shown(judged: Sequence[Judged]) -> dict[str, float]:
    """Figures of an arm, each the mean over its seeds."""
    figures = {name: [of(one).mean() for one in judged] for name, of in FIGURES.items()}
    figures["cross_entropy"] = [np.nanmean(one.cross_entropy) for one in judged]
    means = {name: float(np.mean(values)) for name, values in figures.items()}
    return {**means, "parameters": judged[0].parameters}


def found(
    contrasts: Sequence[Contrast], trained: Trained, beside: Sequence[str] = ()
) -> dict[str, Any]:
    """A phenomenon: figures of its arms, its differences, and whether each of those is above 0 with
    its whole interval."""
    arms = dict.fromkeys(
        [*(arm for one in contrasts for side in _sides(one) for arm in side), *beside]
    )
    differences = [compared(one, trained) for one in contrasts]
    return {
        "figures": {arm: shown(trained[arm]) for arm in arms},
        "seeds": differences[0]["seeds"],
        "differences": differences,
        "reproduced": all(one["interval"][0] > 0 for one in differences),
    }
