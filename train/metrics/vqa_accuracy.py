"""VQA accuracy of many questions at once, from how many of their references match."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from train.inputs.references import ANNOTATORS

Scores = npt.NDArray[np.float64]


def official_scores(matches: npt.NDArray[np.int64], n: int = ANNOTATORS) -> Scores:
    """Matches among n references -> accuracy: the mean over leaving out each reference once."""
    left = np.maximum(matches - 1, 0)
    matching = matches * np.minimum(1.0, left / 3)
    scores: Scores = (matching + (n - matches) * np.minimum(1.0, matches / 3)) / n
    return scores


def simple_scores(matches: npt.NDArray[np.int64]) -> Scores:
    """min(matches / 3, 1)."""
    scores: Scores = np.minimum(1.0, matches / 3)
    return scores
