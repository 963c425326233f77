"""The temperature that fits the part which selected the epoch: `calibration` of a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from train.engine.outputs import EVALUATION_BATCH
from train.engine.step import forward
from train.inputs.load import TrainingData
from train.inputs.single_pass import single_pass
from train.metrics.temperature import MOST, loss_at, temperature_of
from vqa_cache.system.signals import Stopped


@dataclass(frozen=True)
class FittedTemperature:
    """What logits are divided by, beyond what the model was trained to have them divided by.

    Attributes:
        n: examples of `split` that it was fitted on; 0, and a temperature of 1, where none has its
            answer in the vocabulary, or the model's outputs are not finite.
        cross_entropy_before, cross_entropy_after: on these, nats.
    """

    temperature: float
    split: str
    n: int
    cross_entropy_before: float | None
    cross_entropy_after: float | None


def fit_temperature(
    model: nn.Module,
    data: TrainingData,
    *,
    temperature: float,
    stopping: Callable[[], bool] = lambda: False,
) -> FittedTemperature:
    """Fit it on every so-manyth example, `MOST` at most. Raises Stopped.

    Args:
        temperature: what the model was trained with.
    """
    part = data.parts[data.selection]
    labelled = torch.from_numpy(part.labelled).nonzero()[:, 0]
    chosen = labelled[:: max(1, -(-len(labelled) // MOST))]
    chosen = chosen[part.truth[chosen] < len(data.vocabulary)]
    found, truths = [], []
    model.eval()
    with torch.no_grad():
        for span, inputs in single_pass(part, data.tables, EVALUATION_BATCH, chosen):
            if stopping():
                raise Stopped("stopped by a signal")
            logits = forward(model, inputs, data.precision)
            found.append(logits.float().cpu() / temperature)
            truths.append(part.truth[span.cpu()])
    if not found or not all(one.isfinite().all() for one in found):
        return FittedTemperature(1.0, data.selection, 0, None, None)
    logits, truth = torch.cat(found), torch.cat(truths)
    best = temperature_of(logits, truth)
    before, after = (loss_at(logits, truth, one) for one in (1.0, best))
    return FittedTemperature(best, data.selection, len(truth), before, after)
