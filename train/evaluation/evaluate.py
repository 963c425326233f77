"""Evaluating a model on a part: one pass in large batches, then numbers and texts from tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
from train.inputs.vocabulary import Vocabulary
from train.losses import IGNORED
from train.metrics.classification import METRICS, TOP, Evaluated, accuracy_by_type, compute
from vqa_cache.system.signals import Stopped

Prediction = dict[str, int | str]
FAILED_ITEM = "an item failed in stage 1 or is missing"
NOT_FINITE = "the model's output is not finite"
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


def always(part: Part, answer: int) -> Outputs:
    """Outputs of a model that always gives the same answer, without logits."""
    n = len(part)
    no, yes = np.zeros(n, dtype=bool), np.ones(n, dtype=bool)
    return Outputs(np.full(n, answer), np.full(n, np.nan), no, yes)


def measure(
    part: Part, outputs: Outputs, vocabulary: Vocabulary, names: Iterable[str] = METRICS
) -> dict[str, Any]:
    """`metrics.<split>` of a result: values (None where there is none), reasons, n, and accuracy
    by question and answer type where the dataset has types."""
    record = evaluated(part, outputs, len(vocabulary))
    values, reasons = compute(record, names)
    split, chosen = part.joined.split, part.joined.kept[part.answered]
    return {
        **values,
        "accuracy_se_method": "clustered by image",
        "n": len(chosen),
        "n_left_out": part.left_out,
        "n_predicted": int(outputs.finite.sum()),
        "n_questions": len(record.all_predicted),
        "other_policy": vocabulary.other,
        "by_answer_type": _by_type(record, split.answer_type[chosen], split.answer_types),
        "by_question_type": _by_type(record, split.question_type[chosen], split.question_types),
        "reasons": reasons,
    }


def _by_type(
    record: Evaluated, codes: npt.NDArray[np.int32], names: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    return {} if record.not_finite else accuracy_by_type(record.correct, codes, names)


def predictions(
    part: Part, outputs: Outputs, vocabulary: Vocabulary
) -> tuple[list[Prediction], list[Prediction]]:
    """VQA results format: an answer for every question of the part's split or tenth, in its order.

    Returns:
        All answers; and those of them that are no prediction but the most frequent answer of train,
        each with the `reason`.
    """
    left_out, kept = part.joined.left_out, part.joined.kept
    instead = vocabulary.answers[part.most_frequent]
    why: dict[int, str] = dict.fromkeys(left_out.tolist(), FAILED_ITEM)
    why |= dict.fromkeys(kept[~outputs.finite].tolist(), NOT_FINITE)
    own = dict(zip(kept.tolist(), outputs.predicted.tolist(), strict=True))
    examples = sorted([*kept.tolist(), *left_out.tolist()])
    ids = part.joined.split.question_id[examples].tolist()
    answers = [
        {"question_id": question_id, "answer": instead if e in why else vocabulary.answers[own[e]]}
        for e, question_id in zip(examples, ids, strict=True)
    ]
    substitutes = [
        {**row, "reason": why[e]} for e, row in zip(examples, answers, strict=True) if e in why
    ]
    return answers, substitutes
