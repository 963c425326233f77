"""Loss scaling, without which gradients in float16 vanish."""

from __future__ import annotations

import torch

FIRST_SCALE = 2.0**16
GROWTH, BACKOFF, GROWTH_INTERVAL = 2.0, 0.5, 2000


class GradientScaler:
    """Multiplies the loss, divides the gradients, and skips updates that overflowed
    (Micikevicius et al. 2018, arXiv:1710.03740).

    The rule, the constants and the kernels of `torch.amp.GradScaler`. That one reads its state
    through Python; here it stays in tensors, which a captured step updates and a snapshot holds.

    Attributes:
        scale: float32 scalar, what the loss is multiplied by.
        growth: int32 scalar, finite steps since the scale last changed.
    """

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((), FIRST_SCALE, device=device)
        self.growth = torch.zeros((), dtype=torch.int32, device=device)

    def unscale(self, gradients: list[torch.Tensor]) -> torch.Tensor:
        """Divide gradients in place; float32 scalar: 1 where one is not finite, otherwise 0."""
        found_inf = torch.zeros((), device=self.scale.device)
        inverse = self.scale.double().reciprocal().float()
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, found_inf, inverse)
        return found_inf

    def update(self, found_inf: torch.Tensor) -> None:
        """Halve the scale after an overflow, double it after 2,000 steps without one."""
        torch._amp_update_scale_(
            self.scale, self.growth, found_inf, GROWTH, BACKOFF, GROWTH_INTERVAL
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its state by name."""
        return {"scaler.scale": self.scale, "scaler.growth": self.growth}
