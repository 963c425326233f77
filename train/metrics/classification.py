"""Metrics of one evaluated split. Fractions are 0 to 1, losses are in nats.

A metric is a function of `Evaluated`; it raises NotComputable with the reason where it has no
value. Classes are those of the vocabulary (0 to C - 1); a truth of C or more is an answer outside
the vocabulary, which no prediction can match.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from train.components import families
from train.metrics.vqa_accuracy import References, official_scores, simple_scores

METRICS: dict[str, str] = {
    "accuracy": "train.metrics.classification:accuracy",
    "accuracy_se": "train.metrics.classification:accuracy_se",
    "top5_accuracy": "train.metrics.classification:top5_accuracy",
    "vqa_accuracy_official": "train.metrics.classification:vqa_accuracy_official",
    "vqa_accuracy_simple": "train.metrics.classification:vqa_accuracy_simple",
    "f1_macro": "train.metrics.classification:f1_macro",
    "precision_macro": "train.metrics.classification:precision_macro",
    "recall_macro": "train.metrics.classification:recall_macro",
    "cross_entropy": "train.metrics.classification:cross_entropy",
    "ceiling": "train.metrics.classification:ceiling",
}
TOP = 5
Whole = npt.NDArray[np.int64]


class NotComputable(Exception):
    """A metric has no value here; the text is the reason."""


@dataclass(frozen=True)
class Evaluated:
    """Predictions for n labelled examples.

    Attributes:
        num_answers: C, the size of the vocabulary.
        predicted: int64 [n], a class each.
        truth: int64 [n].
        cross_entropy: float64 [n], nats; NaN where the truth is outside the vocabulary.
        in_top5: bool [n], whether the truth is among the five highest logits: at most five, its own
            among them, are as high, so that ties count against it.
        image: int64 [n], examples of the same image share a number.
        references: for VQA accuracy, or the reason why there are none.
    """

    num_answers: int
    predicted: Whole
    truth: Whole
    cross_entropy: npt.NDArray[np.float64]
    in_top5: npt.NDArray[np.bool_]
    image: Whole
    references: References | str

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """bool [n]."""
        right: npt.NDArray[np.bool_] = self.predicted == self.truth
        return right


def compute(
    evaluated: Evaluated, names: Iterable[str] = METRICS
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Values by metric, None where one has no value, and the reasons for those."""
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for name in names:
        try:
            if not len(evaluated.truth):
                raise NotComputable("no labelled example to evaluate")
            values[name] = float(families.METRIC.find(name)(evaluated))
        except NotComputable as reason:
            values[name], reasons[name] = None, str(reason)
    return values, reasons


def accuracy(evaluated: Evaluated) -> float:
    """Share of examples whose predicted answer is the truth."""
    return float(evaluated.correct.mean())


def accuracy_se(evaluated: Evaluated) -> float:
    """Standard error of accuracy, clustered by image: questions of one image are not independent.

    sqrt(G / (G - 1) * sum over G images of (sum of (correct - accuracy))^2) / n.
    """
    _, image = np.unique(evaluated.image, return_inverse=True)
    clusters = int(image.max()) + 1
    if clusters < 2:
        raise NotComputable("all examples are of one image; the error is clustered by image")
    residual = evaluated.correct - evaluated.correct.mean()
    sums = np.bincount(image, weights=residual, minlength=clusters)
    return float(np.sqrt(clusters / (clusters - 1) * np.square(sums).sum()) / len(residual))


def top5_accuracy(evaluated: Evaluated) -> float:
    """Share of examples whose truth is among the five answers with the highest logits."""
    if evaluated.num_answers <= TOP:
        raise NotComputable(f"the vocabulary has {evaluated.num_answers} answers, {TOP} are all")
    return float(evaluated.in_top5.mean())


def cross_entropy(evaluated: Evaluated) -> float:
    """Mean cross-entropy over the truths that are in the vocabulary, nats."""
    inside = evaluated.truth < evaluated.num_answers
    if not inside.any():
        raise NotComputable("no truth is in the vocabulary")
    return float(evaluated.cross_entropy[inside].mean())


def ceiling(evaluated: Evaluated) -> float:
    """Share of truths that are in the vocabulary: the highest accuracy that can be reached."""
    return float((evaluated.truth < evaluated.num_answers).mean())


def precision_macro(evaluated: Evaluated) -> float:
    """Mean over the classes that occur as a truth of right / predicted; 0 if never predicted."""
    precision, _, _ = _per_class(evaluated)
    return float(precision.mean())


def recall_macro(evaluated: Evaluated) -> float:
    """Mean over the classes that occur as a truth of right / occurring."""
    _, recall, _ = _per_class(evaluated)
    return float(recall.mean())


def f1_macro(evaluated: Evaluated) -> float:
    """Mean over the classes that occur as a truth of 2 x right / (predicted + occurring)."""
    _, _, f1 = _per_class(evaluated)
    return float(f1.mean())


def _per_class(evaluated: Evaluated) -> tuple[npt.NDArray[np.float64], ...]:
    classes = int(max(evaluated.truth.max(), evaluated.predicted.max())) + 1
    occurring = np.bincount(evaluated.truth, minlength=classes)
    predicted = np.bincount(evaluated.predicted, minlength=classes)
    right = np.bincount(evaluated.truth[evaluated.correct], minlength=classes)
    there = occurring > 0
    occurring, predicted, right = occurring[there], predicted[there], right[there]
    return (
        right / np.maximum(predicted, 1),
        right / occurring,
        2 * right / (predicted + occurring),
    )


def vqa_accuracy_official(evaluated: Evaluated) -> float:
    """Mean official VQA accuracy (flavour official-2021, see data/answers.py)."""
    return float(official_scores(_matches(evaluated)).mean())


def vqa_accuracy_simple(evaluated: Evaluated) -> float:
    """Mean of min(matching annotators / 3, 1)."""
    return float(simple_scores(_matches(evaluated)).mean())


def _matches(evaluated: Evaluated) -> Whole:
    if isinstance(evaluated.references, str):
        raise NotComputable(evaluated.references)
    return evaluated.references.matches(evaluated.predicted)


def accuracy_by_type(
    correct: npt.NDArray[np.bool_], codes: npt.NDArray[np.int32], names: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    """Accuracy and n for each type that occurs; codes [n] into `names`, -1 = none."""
    by_type: dict[str, dict[str, float | int]] = {}
    for code in np.unique(codes[codes >= 0]).tolist():
        chosen = correct[codes == code]
        by_type[names[code]] = {"accuracy": float(chosen.mean()), "n": len(chosen)}
    return by_type
