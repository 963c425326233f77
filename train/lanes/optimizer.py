"""Adam and AdamW for all lanes at once, with a learning rate and a weight decay for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch


class LaneAdam:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980); weight decay is added to the gradient.

    The arithmetic of `torch.optim.Adam`: bias-corrected moments, eps added to the root. Rates are
    computed in float64 and applied in the parameters' type.
    """

    decoupled = False  # whether weights decay beside the update, not in it

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        decays: Sequence[bool],
        *,
        lr: torch.Tensor,
        weight_decay: torch.Tensor,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        """
        Args:
            parameters: lanes first.
            decays: which of them decay.
            lr, weight_decay: float64 [lanes].
        """
        self.parameters = list(parameters)
        self.decays = list(decays)
        self.lr = lr
        self.weight_decay = weight_decay
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self._decaying = bool(weight_decay.any())
        # counted on the device, as a CUDA graph would keep a number as it was at the capture
        self.updates = torch.zeros((), dtype=torch.float64, device=lr.device)
        self._mean = [torch.zeros_like(p) for p in self.parameters]
        self._square = [torch.zeros_like(p) for p in self.parameters]

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """What goes on from step to step, by name."""
        moments = {"mean": self._mean, "square": self._square}
        named = {f"{i}.{kind}": t for kind, own in moments.items() for i, t in enumerate(own)}
        return {**named, "updates": self.updates}

    def clear_gradients(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def keep(self, lanes: torch.Tensor) -> None:
        """Go on with some of the lanes, int64 [k]; the parameters are left to the model."""
        self.lr, self.weight_decay = self.lr[lanes], self.weight_decay[lanes]
        self._mean = [moment[lanes] for moment in self._mean]
        self._square = [moment[lanes] for moment in self._square]

    @torch.no_grad()
    def step(self, factor: torch.Tensor) -> None:
        """Update from the gradients, with every lane's rate times `factor`, a float64 scalar."""
        self.updates += 1
        rate = self.lr * factor
        size = rate / (1 - self.beta1**self.updates)
        shrink = 1 - rate * self.weight_decay
        root = (1 - self.beta2**self.updates).sqrt()
        for parameter, decays, mean, square in zip(
            self.parameters, self.decays, self._mean, self._square, strict=True
        ):
            gradient = parameter.grad
            if gradient is None:
                continue
            if decays and self.decoupled:
                parameter.mul_(_beside(shrink, parameter))
            elif decays and self._decaying:
                gradient = gradient + parameter * _beside(self.weight_decay, parameter)
            mean.lerp_(gradient, 1 - self.beta1)
            square.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
            update = square.sqrt().div_(root).add_(self.eps)
            torch.div(mean, update, out=update)
            parameter.sub_(update.mul_(_beside(size, parameter)))


class LaneAdamW(LaneAdam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101)."""

    decoupled = True


def _beside(values: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """[lanes] as [lanes, 1, ...] of a parameter's type."""
    return values.to(parameter.dtype).view(-1, *[1] * (parameter.ndim - 1))
