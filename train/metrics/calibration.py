"""How far a model's confidence can be believed, and what it answers where it may keep silent.

The confidence of an answer is the probability that the model gives it. Errors and shares are of all
n examples that accuracy counts, 0 to 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
BINS = 15  # of equal width, (0, 1/15], ..., (14/15, 1]


def reliability(
    confidence: Floats, correct: npt.NDArray[np.bool_], bins: int = BINS
) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Mean confidence, accuracy and n of the examples in each bin that holds some: `bins` of equal
    width, closed above."""
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    n = np.bincount(place, minlength=bins)
    there = n > 0
    right = np.bincount(place, weights=correct, minlength=bins)
    said = np.bincount(place, weights=confidence, minlength=bins)
    return said[there] / n[there], right[there] / n[there], n[there]


def expected_calibration_error(
    confidence: Floats, correct: npt.NDArray[np.bool_], bins: int = BINS
) -> float:
    """Mean over examples of |accuracy - mean confidence| of the bin that an example's confidence
    falls into (Guo et al. 2017, arXiv 1706.04599); bins as in `reliability`."""
    said, right, n = reliability(confidence, correct, bins)
    return float((np.abs(right - said) * n).sum() / len(confidence))


def risk_coverage(confidence: Floats, correct: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """(coverage, error among the covered) for every confidence that occurs, the highest first.
    Examples of one confidence are answered together, since nothing tells them apart."""
    order = np.argsort(-confidence, kind="stable")
    ranked, wrong = confidence[order], np.cumsum(~correct[order])
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    answered = (last + 1).astype(np.float64)
    return answered / len(confidence), wrong[last] / answered


def coverage_at_error(confidence: Floats, correct: npt.NDArray[np.bool_], most: float) -> float:
    """Largest share of examples that can be answered, the most confident first, with an error of at
    most `most` among them; 0 where none can."""
    coverage, error = risk_coverage(confidence, correct)
    allowed = coverage[error <= most]
    return float(allowed[-1]) if len(allowed) else 0.0


def area_under_risk_coverage(confidence: Floats, correct: npt.NDArray[np.bool_]) -> float:
    """Mean over examples of the error among those at least as confident (Geifman et al. 2019,
    arXiv 1805.08206); 0 is best, the error itself is what random confidences give on average."""
    coverage, error = risk_coverage(confidence, correct)
    return float((error * np.diff(coverage, prepend=0.0)).sum())


def accuracy_at_coverage(confidence: Floats, correct: npt.NDArray[np.bool_], least: float) -> float:
    """Accuracy of the most confident examples, `least` of all of them or as many more as share the
    lowest confidence among these."""
    coverage, error = risk_coverage(confidence, correct)
    return float(1 - error[np.searchsorted(coverage, least - 1e-12)])


def average_precision(positive: npt.NDArray[np.bool_], scores: Floats) -> float:
    """Mean over the positive examples of the precision among those with a score at least as high:
    the area under the precision-recall steps, as scikit-learn has it. NaN without a positive one.

    VizWiz's answerability counts unanswerable questions as positive.
    """
    if not positive.any():
        return float("nan")
    coverage, error = risk_coverage(scores, positive)
    found = np.rint(coverage * len(scores)) * (1 - error)
    return float((np.diff(found, prepend=0.0) * (1 - error)).sum() / positive.sum())
