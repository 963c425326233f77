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
_LENGTH_FLOOR = 1e-12
_EIGENVALUE_FLOOR = 1e-6  # of the largest; keeps directions without variance from blowing up


def prepare(
    vectors: torch.Tensor, how: Preparation, like: torch.Tensor | None = None
) -> torch.Tensor:
    """Answer vectors [answers, width] -> float32 [answers, width], each row of length 1.

    centre subtracts the mean row; zscore also divides each dimension by its (unbiased) standard
    deviation; whiten turns the covariance into the identity. A row equal to the mean stays 0.
    Two are a journal's, with rows of other lengths: zscore_long leaves them as z-scoring makes
    them, about sqrt(width) long, which acts as a scale on the cosines; l2_over_answers, its
    mistake, gives each dimension length 1 over the answers instead of each answer over its
    dimensions.

    Args:
        like: rows whose statistics are applied, [others, width]; None takes the given ones.

    Raises ValueError where whitening has no more answers than dimensions.
    """
    exact = vectors.double()
    others = exact if like is None else like.double()
    if how == "l2_over_answers":
        return (exact / others.norm(dim=0).clamp_min(_LENGTH_FLOOR)).float()
    if how != "none":
        mean = others.mean(dim=0)
        exact, others = exact - mean, others - mean
    if how in ("zscore", "zscore_long") and len(others) > 1:
        deviation = others.std(dim=0)
        exact = exact / torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    if how == "whiten":
        exact = exact @ _whitening(others)
    return (exact if how == "zscore_long" else functional.normalize(exact, dim=1)).float()


def _whitening(centred: torch.Tensor) -> torch.Tensor:
    """The matrix that makes the covariance of these rows the identity."""
    answers, width = centred.shape
    if answers <= width:
        raise ValueError(
            f"answers = 'whiten' needs more answers than dimensions: found {answers} answers of "
            f"{width} dimensions; use 'centre', or a larger answers.k"
        )
    values, directions = torch.linalg.eigh(centred.T @ centred / (answers - 1))
    kept = values.clamp_min(float(values[-1]) * _EIGENVALUE_FLOOR)
    whitening: torch.Tensor = directions / kept.sqrt()
    return whitening


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
