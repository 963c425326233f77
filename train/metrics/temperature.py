"""The temperature that makes probabilities fit (Guo et al. 2017, arXiv 1706.04599)."""

from __future__ import annotations

import torch
from torch.nn import functional

MOST = 4096  # examples that it is fitted on
LOW, HIGH = 0.05, 20.0  # temperatures that are tried
_STEPS = 60  # of the search: beyond what a float32 tells apart


def temperature_of(logits: torch.Tensor, truth: torch.Tensor) -> float:
    """The temperature with the lowest mean cross-entropy of logits [n, C] and classes int64 [n].

    The loss is convex in its inverse, so its derivative there, the mean over examples of (expected
    logit - the truth's), has one zero: Newton's steps find it, halved where one leaves the bounds.
    """
    logits = logits.double()
    own = logits.gather(1, truth[:, None])[:, 0].mean()
    low, high = 1 / HIGH, 1 / LOW
    inverse = 1.0
    for _ in range(_STEPS):
        shares = (logits * inverse).softmax(dim=1)
        expected = (shares * logits).sum(dim=1)
        slope = float(expected.mean() - own)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        bend = float(((shares * logits.square()).sum(dim=1) - expected.square()).mean())
        step = inverse - slope / bend if bend > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-9 * inverse:
            break
        inverse = following
    return 1 / inverse


def loss_at(logits: torch.Tensor, truth: torch.Tensor, temperature: float) -> float:
    """Mean cross-entropy, nats."""
    return float(functional.cross_entropy(logits.double() / temperature, truth))
