"""The cross-entropy of every lane, with the options of the single loss by lane."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from train.losses import IGNORED
from train.losses.cross_entropy import CrossEntropy
from train.losses.type_cross_entropy import TypeCrossEntropy, types_cross_entropy


class LaneCrossEntropy:
    """Logits float32 [lanes, batch, answers], targets int64 [batch] -> losses [lanes], in nats.

    Attributes:
        temperature: what each lane's logits are divided by, float32 [lanes].
    """

    def __init__(self, losses: Sequence[CrossEntropy], device: torch.device | None = None) -> None:
        self._tempered = any(loss.temperature != 1 for loss in losses)
        self._smoothed = any(loss.label_smoothing for loss in losses)
        self.temperature = torch.tensor([loss.temperature for loss in losses], device=device)
        self._smoothing = torch.tensor([loss.label_smoothing for loss in losses], device=device)
        self._weights: torch.Tensor | None = None
        given = [loss.weights for loss in losses if loss.weights is not None]
        if given:
            even = torch.ones_like(given[0])
            every = [even if loss.weights is None else loss.weights for loss in losses]
            self._weights = torch.stack(every).to(device)

    def keep(self, lanes: torch.Tensor) -> None:
        """Go on with some of the lanes, int64 [k]."""
        self.temperature, self._smoothing = self.temperature[lanes], self._smoothing[lanes]
        self._weights = None if self._weights is None else self._weights[lanes]

    def __call__(
        self, logits: torch.Tensor, targets: torch.Tensor, chosen: slice = slice(None)
    ) -> torch.Tensor:
        """The losses of all lanes, or of some, whose logits these are."""
        lanes = len(logits)
        if self._tempered:
            logits = logits / self.temperature[chosen, None, None]
        log_shares = logits.log_softmax(dim=-1)
        kept = targets != IGNORED
        index = targets.clamp_min(0)
        weight = kept.to(logits.dtype).expand(lanes, -1)
        if self._weights is not None:
            weight = self._weights[chosen][:, index] * kept
        truth = log_shares.gather(2, index.expand(lanes, -1)[:, :, None])[:, :, 0]
        total = (truth * weight).sum(dim=1)
        if self._smoothed:
            total = torch.lerp(
                total, self._spread(log_shares, kept, chosen), self._smoothing[chosen]
            )
        sums = weight.sum(dim=1)
        return -total / torch.where(sums > 0, sums, 1)

    def _spread(self, log_shares: torch.Tensor, kept: torch.Tensor, chosen: slice) -> torch.Tensor:
        """Sum over examples of the (weighted) mean over answers of log-shares, [lanes]."""
        if self._weights is None:
            means = log_shares.mean(dim=2)
        else:
            means = (
                torch.bmm(log_shares, self._weights[chosen, :, None])[:, :, 0] / log_shares.shape[2]
            )
        return (means * kept).sum(dim=1)


class LaneTypeCrossEntropy(LaneCrossEntropy):
    """The same with the term of `train.losses.TypeCrossEntropy` for the answer's type."""

    def __init__(
        self, losses: Sequence[TypeCrossEntropy], device: torch.device | None = None
    ) -> None:
        super().__init__(losses, device)
        self._type_weight = torch.tensor([loss.type_weight for loss in losses], device=device)
        self._answer_types = losses[0].answer_types.to(device)

    def keep(self, lanes: torch.Tensor) -> None:
        super().keep(lanes)
        self._type_weight = self._type_weight[lanes]

    def __call__(
        self, logits: torch.Tensor, targets: torch.Tensor, chosen: slice = slice(None)
    ) -> torch.Tensor:
        tempered = logits / self.temperature[chosen, None, None]
        of_types = types_cross_entropy(tempered, targets, self._answer_types)
        return super().__call__(logits, targets, chosen) + self._type_weight[chosen] * of_types
