"""Evaluating a model on a part: one pass in large batches, then numbers and texts from tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from train.errors import Stopped
from train.examples import Part
from train.metrics import METRICS, TOP, Evaluated, accuracy_by_type, compute
from train.order import batches
from train.step import Precision, forward
from train.tables import ResidentTable
from train.vocabulary import Vocabulary

EVALUATION_BATCH = 4096


@dataclass(frozen=True)
class Outputs:
    """What a model says about all n examples of a part.

    Attributes:
        predicted: int64 [n], the class with the highest logit.
        cross_entropy: float64 [n], nats; NaN where the truth is no class.
        in_top5: bool [n].
    """

    predicted: npt.NDArray[np.int64]
    cross_entropy: npt.NDArray[np.float64]
    in_top5: npt.NDArray[np.bool_]


def run_model(
    model: nn.Module,
    part: Part,
    tables: Mapping[str, ResidentTable],
    precision: Precision = "fp32",
    *,
    stopping: Callable[[], bool] = lambda: False,
) -> Outputs:
    """Outputs of a model, in evaluation mode, for every example of a part.

    Raises Stopped when `stopping`, asked between batches, is true.
    """
    n = len(part)
    predicted = torch.empty(n, dtype=torch.int64)
    cross_entropy = torch.full((n,), torch.nan, dtype=torch.float64)
    in_top5 = torch.zeros(n, dtype=torch.bool)
    model.eval()
    with torch.no_grad():  # inference tensors could not be reused by training steps
        for span in batches(part, tables, EVALUATION_BATCH, torch.arange(n)):
            if stopping():
                raise Stopped("stopped by a signal")
            logits = forward(model, gather(part, tables, span), precision)
            truth = part.truth[span]
            inside = (truth >= 0) & (truth < logits.shape[1])
            predicted[span] = logits.argmax(dim=1)
            top = logits.topk(min(TOP, logits.shape[1]), dim=1).indices
            in_top5[span] = (top == truth[:, None]).any(dim=1)
            cross_entropy[span[inside]] = functional.cross_entropy(
                logits[inside], truth[inside], reduction="none"
            ).double()
    return Outputs(predicted.numpy(), cross_entropy.numpy(), in_top5.numpy())


def gather(
    part: Part, tables: Mapping[str, ResidentTable], examples: torch.Tensor
) -> dict[str, torch.Tensor]:
    """A batch of inputs: modality -> [batch, width], side by side in one matrix, so that joining
    them copies nothing."""
    widths = [table.width for table in tables.values()]
    compute_type = next(iter(tables.values())).compute_type
    joined = torch.empty((len(examples), sum(widths)), dtype=compute_type)
    return {
        modality: table.gather(part.items[modality].select(examples), out=columns)
        for (modality, table), columns in zip(tables.items(), joined.split(widths, 1), strict=True)
    }


def evaluated(part: Part, outputs: Outputs, num_answers: int) -> Evaluated:
    """The examples of a part that count, with what a model says about them."""
    chosen = part.answered
    return Evaluated(
        num_answers=num_answers,
        predicted=outputs.predicted[chosen],
        truth=part.truth.numpy()[chosen],
        cross_entropy=outputs.cross_entropy[chosen],
        in_top5=outputs.in_top5[chosen],
        image=part.joined.image[chosen],
        references=part.references,
    )


def always(part: Part, answer: int) -> Outputs:
    """Outputs of a model that always gives the same answer, without logits."""
    n = len(part)
    return Outputs(np.full(n, answer), np.full(n, np.nan), np.zeros(n, dtype=bool))


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
        "n_predicted": len(part),
        "other_policy": vocabulary.other,
        "by_answer_type": accuracy_by_type(
            record.correct, split.answer_type[chosen], split.answer_types
        ),
        "by_question_type": accuracy_by_type(
            record.correct, split.question_type[chosen], split.question_types
        ),
        "reasons": reasons,
    }


def predictions(part: Part, outputs: Outputs, vocabulary: Vocabulary) -> list[dict[str, int | str]]:
    """VQA results format: an answer for every question of a part."""
    texts = [vocabulary.answers[number] for number in outputs.predicted.tolist()]
    return [
        {"question_id": question_id, "answer": text}
        for question_id, text in zip(part.question_ids(), texts, strict=True)
    ]
