"""Kullback-Leibler divergence from a distribution over the answers."""

from __future__ import annotations

import torch

from train.losses.soft_cross_entropy import SoftCrossEntropy


class KlDivergence(SoftCrossEntropy):
    """Soft cross-entropy less the targets' own entropy: 0 where the model gives the annotators'
    shares. Its gradient is that of the cross-entropy; against one label it is that itself."""

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        entropy = -torch.special.xlogy(targets, targets).sum()
        kept = (targets.sum(dim=-1) > 0).sum().clamp_min(1)
        return super().forward(logits, targets) - entropy / kept
