"""Logistic regression on the answers, for a whole path of penalties.

Mean cross-entropy + lambda / 2 |W|^2, the bias free, by L-BFGS (Liu and Nocedal 1989). The 45
penalties are those of DINOv3's evaluation (arXiv:2508.10104), C = 10^-6 to 10^5 of the sum over n
examples: lambda = 1 / (C n). They are solved from the strongest on, each from the solution before
it. A product is one of distinct rows: questions of an image share
its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean

import torch

from train.engine.ridge import CHUNK, Column, check_stop

STRENGTHS = tuple(
    10.0 ** (6 - 11 * place / 44) for place in range(45)
)  # 1 / C, the strongest first
_STEPS = 500  # of one penalty, at most
_FLAT = 1e-6  # largest slope at which a solution counts as found
Solution = tuple[torch.Tensor, torch.Tensor]  # W [width, classes] and bias [classes], float64


class LogisticPath:
    """The regression of examples whose inputs are columns side by side.

    Args:
        truth: int64 [n], a class each.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        truth: torch.Tensor,
        classes: int,
        *,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._rows = [column.exact(torch.arange(column.distinct)) for column in columns]
        self._numbers = [column.number for column in columns]
        self._truth, self._stopping = truth, stopping
        self._weights = [rows.new_zeros(rows.shape[1], classes) for rows in self._rows]
        self._bias = torch.zeros(classes, dtype=torch.float64)
        # of the mean cross-entropy along a weight, about: variance times p (1 - p)
        self._curved = mean(float(rows.square().mean()) for rows in self._rows) / classes

    def solve(self, penalty: float) -> Solution:
        """The solution of one penalty, looked for from the one before. Raises Stopped."""
        # weights in units in which a penalty does not change how curved the loss is: without them
        # the bias, which has none, is found in tiny steps where the penalty is strong
        self._unit = (penalty + self._curved) ** -0.5
        scaled = [weights / self._unit for weights in self._weights]
        optimizer = torch.optim.LBFGS(
            [*scaled, self._bias],
            max_iter=_STEPS,
            tolerance_grad=_FLAT,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )

        def closure() -> torch.Tensor:
            self._weights = [own * self._unit for own in scaled]
            loss, slopes, bias_slope = self._loss_and_slopes(penalty)
            for own, slope in zip(scaled, slopes, strict=True):
                own.grad = slope * self._unit
            self._bias.grad = bias_slope
            return loss

        optimizer.step(closure)
        self._weights = [own.detach() * self._unit for own in scaled]
        return torch.cat(self._weights), self._bias.clone()

    def _loss_and_slopes(
        self, penalty: float
    ) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        check_stop(self._stopping)
        n = len(self._truth)
        scores = [rows @ own for rows, own in zip(self._rows, self._weights, strict=True)]
        slopes = [torch.zeros_like(score) for score in scores]
        loss, bias_slope = torch.zeros((), dtype=torch.float64), torch.zeros_like(self._bias)
        for chunk in torch.arange(n).split(CHUNK):
            numbers = [number[chunk] for number in self._numbers]
            logits = self._bias + sum(
                score[own] for score, own in zip(scores, numbers, strict=True)
            )
            log_shares = logits.log_softmax(dim=1)
            truth = self._truth[chunk, None]
            loss -= log_shares.gather(1, truth).sum() / n
            slope = log_shares.exp().scatter_add_(
                1, truth, torch.full_like(truth, -1, dtype=torch.float64)
            )
            slope /= n
            bias_slope += slope.sum(dim=0)
            for whole, own in zip(slopes, numbers, strict=True):
                whole.index_add_(0, own, slope)
        found = []
        for rows, weights, slope in zip(self._rows, self._weights, slopes, strict=True):
            found.append(rows.T @ slope + penalty * weights)
            loss += penalty / 2 * weights.square().sum()
        return loss, found, bias_slope
