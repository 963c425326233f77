"""Metrics of one evaluated split. Fractions are 0 to 1, losses are in nats.

A metric is a function of `Evaluated`; it raises NotComputable with the reason where it has no
value. Classes are those of the vocabulary (0 to C - 1); a truth of C or more is an answer outside
the vocabulary, which no prediction can match.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from train.components import families
from train.inputs.references import References
from train.metrics import calibration
from train.metrics.clustered import clustered_error
from train.metrics.vqa_accuracy import official_scores, simple_scores

METRICS: dict[str, str] = {
    "accuracy": "train.metrics.classification:accuracy",
    "accuracy_se": "train.metrics.classification:accuracy_se",
    "top5_accuracy": "train.metrics.classification:top5_accuracy",
    "vqa_accuracy_official": "train.metrics.classification:vqa_accuracy_official",
    "vqa_accuracy_simple": "train.metrics.classification:vqa_accuracy_simple",
    "vqa_accuracy_official_2017": "train.metrics.classification:vqa_accuracy_official_2017",
    "vqa_accuracy_evalai": "train.metrics.classification:vqa_accuracy_evalai",
    "vizwiz_accuracy": "train.metrics.classification:vizwiz_accuracy",
    "f1_macro": "train.metrics.classification:f1_macro",
    "precision_macro": "train.metrics.classification:precision_macro",
    "recall_macro": "train.metrics.classification:recall_macro",
    "precision_weighted": "train.metrics.classification:precision_weighted",
    "f1_weighted": "train.metrics.classification:f1_weighted",
    "cross_entropy": "train.metrics.classification:cross_entropy",
    "ceiling": "train.metrics.classification:ceiling",
    "vqa_ceiling": "train.metrics.classification:vqa_ceiling",
    "calibration_error": "train.metrics.classification:calibration_error",
    "coverage_at_1_percent_error": "train.metrics.classification:coverage_at_1_percent_error",
    "coverage_at_5_percent_error": "train.metrics.classification:coverage_at_5_percent_error",
    "unanswerable_average_precision": (
        "train.metrics.classification:unanswerable_average_precision"
    ),
    "area_under_risk_coverage": "train.metrics.classification:area_under_risk_coverage",
    "accuracy_at_50_percent_coverage": (
        "train.metrics.classification:accuracy_at_50_percent_coverage"
    ),
    "accuracy_at_80_percent_coverage": (
        "train.metrics.classification:accuracy_at_80_percent_coverage"
    ),
    "calibration_error_fitted": "train.metrics.classification:calibration_error_fitted",
    "annotator_divergence": "train.metrics.classification:annotator_divergence",
    "accuracy_head": "train.metrics.head_and_tail:accuracy_head",
    "accuracy_tail": "train.metrics.head_and_tail:accuracy_tail",
}
TOP = 5
Whole = npt.NDArray[np.int64]


class NotComputable(Exception):
    """A metric has no value here; the text is the reason."""


@dataclass(frozen=True)
class Evaluated:
    """Predictions for n examples with an answer that counts.

    Attributes:
        num_answers: C, the size of the vocabulary.
        predicted: int64 [n], a class each.
        truth: int64 [n].
        cross_entropy: float64 [n], nats; NaN where the truth is outside the vocabulary.
        in_top5: bool [n], whether the truth is among the five highest logits: at most five, its own
            among them, are as high, so that ties count against it.
        image: int64 [n], examples of the same image share a number.
        in_vocabulary: bool [m], of all labelled examples, dropped ones among them, whether the
            answer is in the vocabulary.
        all_predicted: int64 [q], a class for each labelled question, those without a usable image
            among them.
        references: of those q, for VQA accuracy; or the reason why there are none.
        confidence: float64 [n], the probability of the predicted class; None of a rule.
        unanswerable: bool [n] and float64 [n], which questions cannot be answered, the probability
            that the model gives to that; None where the dataset does not say.
        fitted_confidence: float64 [n], the same at the temperature that fits the selection part.
        divergence: float64 [n], nats, from the annotators' answers, see `Outputs`.
        question_type: int32 [n], a number each, -1 where there is none; None is one type for all.
        not_finite: the number of outputs that hold NaN or infinity: a model that gives such has
            no figures.
        zero_division: the precision of a class that is never predicted.
    """

    num_answers: int
    predicted: Whole
    truth: Whole
    cross_entropy: npt.NDArray[np.float64]
    in_top5: npt.NDArray[np.bool_]
    image: Whole
    in_vocabulary: npt.NDArray[np.bool_]
    all_predicted: Whole
    references: References | str
    not_finite: int = 0
    confidence: npt.NDArray[np.float64] | None = None
    unanswerable: tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]] | None = None
    zero_division: float = 0.0
    fitted_confidence: npt.NDArray[np.float64] | None = None
    divergence: npt.NDArray[np.float64] | None = None
    question_type: npt.NDArray[np.int32] | None = None

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
            if evaluated.not_finite:
                raise NotComputable(f"{evaluated.not_finite:,} outputs of the model are not finite")
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
    """Standard error of accuracy, clustered by image."""
    error = clustered_error(evaluated.correct, evaluated.image)
    if math.isnan(error):
        raise NotComputable("all examples are of one image; the error is clustered by image")
    return error


def top5_accuracy(evaluated: Evaluated) -> float:
    """Share of examples whose truth is among the five answers with the highest logits."""
    if evaluated.num_answers <= TOP:
        raise NotComputable(f"the vocabulary has {evaluated.num_answers} answers, {TOP} are all")
    return float(evaluated.in_top5.mean())


def cross_entropy(evaluated: Evaluated) -> float:
    """Mean cross-entropy over the truths that are classes, nats, of the probabilities that the
    model predicts with."""
    inside = evaluated.truth < evaluated.num_answers
    if not inside.any():
        raise NotComputable("no truth is in the vocabulary")
    mean = float(evaluated.cross_entropy[inside].mean())
    if not np.isfinite(mean):
        raise NotComputable("infinite: the model gives a truth no probability at all")
    return mean


def ceiling(evaluated: Evaluated) -> float:
    """Share of questions whose answer is in the vocabulary, of all that have one: with other =
    "wrong" the highest accuracy that can be reached."""
    return float(evaluated.in_vocabulary.mean())


def precision_macro(evaluated: Evaluated) -> float:
    """Mean over the classes that occur as a truth of right / predicted; 0 if never predicted, or
    what `zero_division` says."""
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
        np.where(predicted > 0, right / np.maximum(predicted, 1), evaluated.zero_division),
        right / occurring,
        2 * right / (predicted + occurring),
    )


def precision_weighted(evaluated: Evaluated) -> float:
    """Precision of each class that occurs as a truth, weighted by how often it occurs. Recall
    weighted so, and precision, recall and F1 over all examples together (micro), are accuracy."""
    precision, _, _ = _per_class(evaluated)
    return float(np.average(precision, weights=_occurring(evaluated)))


def f1_weighted(evaluated: Evaluated) -> float:
    """F1 of each class that occurs as a truth, weighted by how often it occurs."""
    _, _, f1 = _per_class(evaluated)
    return float(np.average(f1, weights=_occurring(evaluated)))


def _occurring(evaluated: Evaluated) -> Whole:
    return np.unique(evaluated.truth, return_counts=True)[1]


def calibration_error(evaluated: Evaluated) -> float:
    """Expected calibration error in 15 bins of equal width."""
    return calibration.expected_calibration_error(_confidence(evaluated), evaluated.correct)


def coverage_at_1_percent_error(evaluated: Evaluated) -> float:
    """Share that can be answered, the most confident first, with 1 % of it wrong at most."""
    return calibration.coverage_at_error(_confidence(evaluated), evaluated.correct, 0.01)


def coverage_at_5_percent_error(evaluated: Evaluated) -> float:
    """The same with 5 % of it wrong."""
    return calibration.coverage_at_error(_confidence(evaluated), evaluated.correct, 0.05)


def area_under_risk_coverage(evaluated: Evaluated) -> float:
    """Mean error over all shares that can be answered, the most confident first."""
    return calibration.area_under_risk_coverage(_confidence(evaluated), evaluated.correct)


def accuracy_at_50_percent_coverage(evaluated: Evaluated) -> float:
    """Accuracy of the most confident half."""
    return calibration.accuracy_at_coverage(_confidence(evaluated), evaluated.correct, 0.5)


def accuracy_at_80_percent_coverage(evaluated: Evaluated) -> float:
    """The same of the most confident four fifths."""
    return calibration.accuracy_at_coverage(_confidence(evaluated), evaluated.correct, 0.8)


def calibration_error_fitted(evaluated: Evaluated) -> float:
    """`calibration_error` at the temperature that fits the part which selected the epoch."""
    if evaluated.fitted_confidence is None:
        raise NotComputable("no temperature was fitted")
    return calibration.expected_calibration_error(evaluated.fitted_confidence, evaluated.correct)


def annotator_divergence(evaluated: Evaluated) -> float:
    """Mean Kullback-Leibler divergence of the model's probabilities from the shares of the
    annotators' answers that are classes, nats, over the examples with such an answer."""
    if evaluated.divergence is None:
        raise NotComputable("one answer a question: the divergence is the cross-entropy")
    there = evaluated.divergence[~np.isnan(evaluated.divergence)]
    if not len(there):
        raise NotComputable("no annotator's answer is in the vocabulary")
    if not np.isfinite(there).all():
        raise NotComputable("infinite: the model gives an answer no probability at all")
    return float(there.mean())


def unanswerable_average_precision(evaluated: Evaluated) -> float:
    """Average precision of the probability of "unanswerable"; unanswerable questions are positive,
    as VizWiz's evaluator of answerability has it."""
    if evaluated.unanswerable is None:
        raise NotComputable("no question types answerable and unanswerable, or no such answer")
    positive, probability = evaluated.unanswerable
    if not positive.any():
        raise NotComputable("no question is unanswerable")
    return calibration.average_precision(positive, probability)


def _confidence(evaluated: Evaluated) -> npt.NDArray[np.float64]:
    if evaluated.confidence is None:
        raise NotComputable("a rule, which gives no probabilities")
    return evaluated.confidence


def vqa_accuracy_official(evaluated: Evaluated) -> float:
    """Mean official VQA accuracy (flavour official-2021, see data/answers.py) of all labelled
    questions: what the official evaluator gives for the run's file of predictions."""
    return float(official_scores(_matches(evaluated)).mean())


def vqa_accuracy_official_2017(evaluated: Evaluated) -> float:
    """As the official evaluator was before 2021, and is in older libraries."""
    return float(official_scores(_matches(evaluated, "official_2017")).mean())


def vqa_accuracy_evalai(evaluated: Evaluated) -> float:
    """With both sides always normalised: TextVQA's evaluator, and the server's."""
    return float(official_scores(_matches(evaluated, "evalai")).mean())


def vizwiz_accuracy(evaluated: Evaluated) -> float:
    """As VizWiz's evaluator has it: references are compared as they are."""
    return float(official_scores(_matches(evaluated, "vizwiz")).mean())


def vqa_accuracy_simple(evaluated: Evaluated) -> float:
    """Mean of min(matching annotators / 3, 1), of all labelled questions."""
    return float(simple_scores(_matches(evaluated)).mean())


def vqa_ceiling(evaluated: Evaluated) -> float:
    """The highest official VQA accuracy that any choice from the vocabulary could reach."""
    return float(official_scores(_references(evaluated).most_matches()).mean())


def _matches(evaluated: Evaluated, flavour: str = "official") -> Whole:
    return _references(evaluated).matches(evaluated.all_predicted, flavour)


def _references(evaluated: Evaluated) -> References:
    if isinstance(evaluated.references, str):
        raise NotComputable(evaluated.references)
    return evaluated.references


def accuracy_by_type(
    correct: npt.NDArray[np.bool_], codes: npt.NDArray[np.int32], names: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    """Accuracy and n for each type that occurs; codes [n] into `names`, -1 = none."""
    by_type: dict[str, dict[str, float | int]] = {}
    for code in np.unique(codes[codes >= 0]).tolist():
        chosen = correct[codes == code]
        by_type[names[code]] = {"accuracy": float(chosen.mean()), "n": len(chosen)}
    return by_type
