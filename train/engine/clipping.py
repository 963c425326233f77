"""Gradients kept small before an update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

_NEVER_ZERO = 1e-6  # added to a norm before it divides, as torch.nn.utils.clip_grad_norm_ does


@dataclass(frozen=True)
class Clipping:
    """Each number of a gradient to at most `value`, then all of them together to a length of at
    most `norm`; 0 leaves them as they are. Nothing waits for the device."""

    norm: float = 0.0
    value: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.norm or self.value)

    def __call__(self, gradients: list[torch.Tensor]) -> torch.Tensor:
        """Clip in place; the length that they had before, a scalar."""
        before: torch.Tensor = torch.nn.utils.get_total_norm(gradients)
        self._values(gradients)
        if self.norm:
            length = torch.nn.utils.get_total_norm(gradients) if self.value else before
            factor = (self.norm / (length + _NEVER_ZERO)).clamp(max=1)
            torch._foreach_mul_(gradients, factor)
        return before

    def lanes(self, gradients: Sequence[torch.Tensor]) -> None:
        """The same for gradients [lanes, ...]: each lane is clipped by its own length."""
        self._values(list(gradients))
        if self.norm:
            squares = torch.stack(
                [one.reshape(len(one), -1).square().sum(dim=1) for one in gradients]
            )
            length = squares.sum(dim=0).sqrt()
            factor = (self.norm / (length + _NEVER_ZERO)).clamp(max=1)
            for gradient in gradients:
                gradient.mul_(factor.view(-1, *[1] * (gradient.ndim - 1)))

    def _values(self, gradients: list[torch.Tensor]) -> None:
        if self.value:
            torch._foreach_clamp_min_(gradients, -self.value)
            torch._foreach_clamp_max_(gradients, self.value)


NO_CLIPPING = Clipping()
