"""What a model says about all examples of a part: one pass in large batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from train.config.precisions import Precision
from train.engine.step import forward
from train.inputs.batch import InputTable, gather
from train.inputs.order import batches
from train.inputs.parts import Part
from train.inputs.resident import device_of
from train.losses import IGNORED
from train.metrics.classification import TOP, Evaluated
from vqa_cache.system.signals import Stopped

EVALUATION_BATCH = 1024  # its logits stay in the processor's cache; 4,096 take a fifth longer


@dataclass(frozen=True)
class Outputs:
    """What a model says about all n examples of a part.

    Attributes:
        predicted: int64 [n], the class with the highest logit.
        cross_entropy: float64 [n], nats; NaN where the truth is no class.
        in_top5: bool [n], see `Evaluated`.
        finite: bool [n], whether the highest logit is a finite number.
    """

    predicted: npt.NDArray[np.int64]
    cross_entropy: npt.NDArray[np.float64]
    in_top5: npt.NDArray[np.bool_]
    finite: npt.NDArray[np.bool_]


def run_model(
    model: nn.Module,
    part: Part,
    tables: Mapping[str, InputTable],
    precision: Precision = "fp32",
    *,
    temperature: float = 1.0,
    stopping: Callable[[], bool] = lambda: False,
) -> Outputs:
    """Outputs of a model, in evaluation mode, for every example of a part.

    Args:
        temperature: what the model was trained to have its logits divided by.

    Raises Stopped when `stopping`, asked between batches, is true.
    """
    n, device = len(part), device_of(tables)
    predicted = torch.empty(n, dtype=torch.int64, device=device)
    cross_entropy = torch.empty(n, dtype=torch.float64, device=device)
    in_top5, finite = torch.empty((2, n), dtype=torch.bool, device=device)
    all_truths = part.truth.to(device)
    model.eval()
    with torch.no_grad():  # inference tensors could not be reused by training steps
        for span in batches(part, tables, EVALUATION_BATCH, torch.arange(n)):
            if stopping():
                raise Stopped("stopped by a signal")
            place = span.to(device, non_blocking=True)
            logits = forward(model, gather(part, tables, span), precision)
            if temperature != 1:
                logits = logits / temperature
            truth = all_truths[place]
            outside = (truth < 0) | (truth >= logits.shape[1])
            best = logits.argmax(dim=1)  # of NaN and a number NaN is the highest
            predicted[place] = best
            finite[place] = logits.gather(1, best[:, None])[:, 0].isfinite()
            own = logits.gather(1, truth.masked_fill(outside, 0)[:, None])
            # as floats, which the processor compares and adds eight at a time; topk is slower
            as_high = torch.ge(logits, own, out=torch.empty_like(logits)).sum(dim=1)
            in_top5[place] = (as_high > 0) & (as_high <= TOP) & ~outside  # NaN is as high as none
            # not by the mask as an index, whose length the CPU would wait for
            losses = functional.cross_entropy(
                logits, truth.masked_fill(outside, IGNORED), ignore_index=IGNORED, reduction="none"
            )
            cross_entropy[place] = losses.double().masked_fill_(outside, torch.nan)
    found = (predicted, cross_entropy, in_top5, finite)
    return Outputs(*(tensor.cpu().numpy() for tensor in found))


def evaluated(part: Part, outputs: Outputs, num_answers: int) -> Evaluated:
    """The examples of a part that count, with what a model says about them."""
    chosen = part.answered
    instead = np.full(part.left_out_labelled, part.most_frequent)
    return Evaluated(
        num_answers=num_answers,
        predicted=outputs.predicted[chosen],
        truth=part.truth.numpy()[chosen],
        cross_entropy=outputs.cross_entropy[chosen],
        in_top5=outputs.in_top5[chosen],
        image=part.joined.image[chosen],
        in_vocabulary=part.in_vocabulary[part.labelled],
        all_predicted=np.concatenate([outputs.predicted[part.labelled], instead]),
        references=part.references,
        not_finite=int((~outputs.finite).sum()),
    )
