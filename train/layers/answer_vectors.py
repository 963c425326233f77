"""Answer embeddings made fit for a cosine head, and the figures that show why that is needed.

Embeddings of short answers point almost the same way (they are anisotropic), so their cosines are
nearly equal. Removing what they share (Su et al. 2021, arXiv:2103.15316) spreads them out.
Statistics come from the given rows alone, which are those of the answer vocabulary.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

Preparation = Literal["centre", "whiten", "zscore", "none", "zscore_long", "l2_over_answers"]
_EIGENVALUE_FLOOR = 1e-6  # of the largest; keeps directions without variance from blowing up


def prepare(vectors: torch.Tensor, how: Preparation) -> torch.Tensor:
    """Answer vectors [answers, width] -> float32 [answers, width], each row of length 1.

    centre subtracts the mean row; zscore also divides each dimension by its (unbiased) standard
    deviation; whiten turns the covariance into the identity. A row equal to the mean stays 0.
    Two are a journal's, with rows of other lengths: zscore_long leaves them as z-scoring makes
    them, about sqrt(width) long, which acts as a scale on the cosines; l2_over_answers, its
    mistake, gives each dimension length 1 over the answers instead of each answer over its
    dimensions.
    Raises ValueError where whitening has no more answers than dimensions.
    """
    exact = vectors.double()
    if how == "l2_over_answers":
        return functional.normalize(exact, dim=0).float()
    if how != "none":
        exact = exact - exact.mean(dim=0)
    if how in ("zscore", "zscore_long") and len(exact) > 1:
        deviation = exact.std(dim=0)
        exact = exact / torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    if how == "whiten":
        exact = _whiten(exact)
    return (exact if how == "zscore_long" else functional.normalize(exact, dim=1)).float()


def _whiten(centred: torch.Tensor) -> torch.Tensor:
    answers, width = centred.shape
    if answers <= width:
        raise ValueError(
            f"answers = 'whiten' needs more answers than dimensions: found {answers} answers of "
            f"{width} dimensions; use 'centre', or a larger answers.k"
        )
    values, directions = torch.linalg.eigh(centred.T @ centred / (answers - 1))
    kept = values.clamp_min(float(values[-1]) * _EIGENVALUE_FLOOR)
    whitened: torch.Tensor = centred @ directions / kept.sqrt()
    return whitened


def pairwise_cosines(vectors: torch.Tensor, how: Preparation = "none") -> dict[str, float]:
    """Mean and percentiles of the cosines between different rows of [answers, width]."""
    unit = functional.normalize(prepare(vectors, how), dim=1)
    rows, columns = torch.triu_indices(len(unit), len(unit), offset=1)
    cosines = (unit @ unit.T)[rows, columns].double()
    if not len(cosines):
        raise ValueError(f"pairwise cosines need at least 2 answers, found {len(unit)}")
    points = {"min": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}
    ordered = cosines.sort().values
    last = len(ordered) - 1
    figures = {name: float(ordered[round(share * last)]) for name, share in points.items()}
    return {"mean": float(cosines.mean()), **figures}
