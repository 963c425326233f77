"""What a model says about all examples of a part: one pass in large batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from train.config.precisions import Precision
from train.engine.step import forward
from train.inputs.batch import InputTable
from train.inputs.parts import UNANSWERABLE, Part
from train.inputs.resident import device_of
from train.inputs.single_pass import single_pass
from train.inputs.soft_targets import SoftTargets
from train.losses import IGNORED
from train.metrics.classification import TOP, Evaluated
from vqa_cache.system.signals import Stopped

EVALUATION_BATCH = 1024  # its logits stay in the processor's cache; 4,096 take a fifth longer


@dataclass(frozen=True)
class TopAnswers:
    """The most probable answers of n examples, the first of them the predicted one.

    Attributes:
        answers: int64 [n, min(5, C)], classes.
        probabilities: float32 [n, min(5, C)], falling.
    """

    answers: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Wanted:
    """What an evaluation is asked for beside what it always says, since it takes longer.

    Attributes:
        top: the most probable answers.
        annotators: shares of all annotators' answers of every example, for `divergence`.
        fitted_temperature: by which logits are divided for `fitted_confidence`.
    """

    top: bool = True
    annotators: SoftTargets | None = None
    fitted_temperature: float = 1.0


@dataclass(frozen=True)
class Outputs:
    """What a model says about all n examples of a part.

    Attributes:
        predicted: int64 [n], the class with the highest logit.
        cross_entropy: float64 [n], nats; NaN where the truth is no class.
        in_top5: bool [n], see `Evaluated`.
        finite: bool [n], whether the highest logit is a finite number.
        top: None where nobody asked for it.
        confidence: float64 [n], the probability of the predicted class; None of a rule, which has
            no probabilities.
        unanswerable: float64 [n], the probability of the part's class of that name, if it has one.
        divergence: float64 [n], nats, from the annotators' shares to the probabilities; NaN where
            no annotator's answer is a class. None where nobody asked for it.
        fitted_confidence: float64 [n], the confidence at the fitted temperature, where asked for.
    """

    predicted: npt.NDArray[np.int64]
    cross_entropy: npt.NDArray[np.float64]
    in_top5: npt.NDArray[np.bool_]
    finite: npt.NDArray[np.bool_]
    top: TopAnswers | None = None
    confidence: npt.NDArray[np.float64] | None = None
    unanswerable: npt.NDArray[np.float64] | None = None
    divergence: npt.NDArray[np.float64] | None = None
    fitted_confidence: npt.NDArray[np.float64] | None = None


def evaluate(
    model: nn.Module,
    part: Part,
    tables: Mapping[str, InputTable],
    precision: Precision,
    add: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None],
    *,
    temperature: float | torch.Tensor = 1.0,
    rows: int = EVALUATION_BATCH,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """The one loop over batches of an evaluation: what a model says about every example of a part.

    Args:
        add: is given, `rows` at a time, examples, int64 [b]; their logits [b, C], of lanes
            [lanes, b, C]; their truths, int64 [b], IGNORED where that is no class.
        temperature: what logits are divided by; of lanes [lanes, 1, 1].

    Raises Stopped when `stopping`, asked between batches, is true.
    """
    device = device_of(tables)
    truths = part.truth.to(device)
    model.eval()
    with torch.no_grad():  # inference tensors could not be reused by training steps
        for span, inputs in single_pass(part, tables, rows, torch.arange(len(part))):
            if stopping():
                raise Stopped("stopped by a signal")
            place = span.to(device, non_blocking=True)
            logits = forward(model, inputs, precision)
            if isinstance(temperature, torch.Tensor) or temperature != 1:
                logits = logits / temperature
            truth = truths[place]
            outside = (truth < 0) | (truth >= logits.shape[-1])
            add(place, logits, truth.masked_fill(outside, IGNORED))


def run_model(
    model: nn.Module,
    part: Part,
    tables: Mapping[str, InputTable],
    precision: Precision = "fp32",
    *,
    temperature: float = 1.0,
    wanted: Wanted | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Outputs:
    """Outputs of a model, in evaluation mode, for every example of a part.

    Args:
        temperature: what the model was trained to have its logits divided by.

    Raises Stopped when `stopping`, asked between batches, is true.
    """
    n, device = len(part), device_of(tables)
    predicted = torch.empty(n, dtype=torch.int64, device=device)
    cross_entropy, confidence, hopeless = torch.empty((3, n), dtype=torch.float64, device=device)
    in_top5, finite = torch.empty((2, n), dtype=torch.bool, device=device)
    more = None if wanted is None else _More(wanted, device)

    def add(place: torch.Tensor, logits: torch.Tensor, truth: torch.Tensor) -> None:
        outside = truth == IGNORED
        best = logits.argmax(dim=1)  # of NaN and a number NaN is the highest
        predicted[place] = best
        highest = logits.gather(1, best[:, None])[:, 0]
        finite[place] = highest.isfinite()
        own = logits.gather(1, truth.clamp_min(0)[:, None])
        # as floats, which the processor compares and adds eight at a time; topk is slower
        as_high = torch.ge(logits, own, out=torch.empty_like(logits)).sum(dim=1)
        in_top5[place] = (as_high > 0) & (as_high <= TOP) & ~outside  # NaN is as high as none
        # not by the mask as an index, whose length the CPU would wait for
        whole = logits.float().logsumexp(dim=1)
        cross_entropy[place] = (whole - own[:, 0]).double().masked_fill_(outside, torch.nan)
        confidence[place] = (highest - whole).exp().double()
        if part.unanswerable is not None:
            hopeless[place] = (logits[:, part.unanswerable] - whole).exp().double()
        if more is not None:
            more.add(place, logits, best, whole)

    evaluate(model, part, tables, precision, add, temperature=temperature, stopping=stopping)
    return Outputs(
        predicted.cpu().numpy(),
        cross_entropy.cpu().numpy(),
        in_top5.cpu().numpy(),
        finite.cpu().numpy(),
        confidence=confidence.cpu().numpy(),
        unanswerable=None if part.unanswerable is None else hopeless.cpu().numpy(),
        **({} if more is None else more.joined()),
    )


class _More:
    """What is `Wanted`, batch by batch."""

    def __init__(self, wanted: Wanted, device: torch.device) -> None:
        self._wanted = wanted
        self._annotators = wanted.annotators and wanted.annotators.to(device)
        self._found: list[tuple[torch.Tensor, ...]] = []

    def add(
        self, place: torch.Tensor, logits: torch.Tensor, best: torch.Tensor, whole: torch.Tensor
    ) -> None:
        """A batch of `place` [b]: its logits [b, C], their argmax and logsumexp [b]."""
        warm = logits.float() / self._wanted.fitted_temperature
        fitted = (warm.gather(1, best[:, None])[:, 0] - warm.logsumexp(dim=1)).exp().double()
        found = [place, fitted]
        if self._annotators is not None:
            found.append(_divergence(logits, whole, self._annotators, place))
        if self._wanted.top:
            found += _most_probable(logits, best)
        self._found.append(tuple(found))

    def joined(self) -> dict[str, Any]:
        """Fields of `Outputs`, in the examples' order."""
        if not self._found:
            return {}
        columns = [torch.cat(column).cpu() for column in zip(*self._found, strict=True)]
        order = columns[0].argsort()
        fitted, *rest = (column[order].numpy() for column in columns[1:])
        found: dict[str, Any] = {"fitted_confidence": fitted}
        if self._annotators is not None:
            found["divergence"] = rest.pop(0)
        if self._wanted.top:
            found["top"] = TopAnswers(*rest)
        return found


def _divergence(
    logits: torch.Tensor, whole: torch.Tensor, annotators: SoftTargets, place: torch.Tensor
) -> torch.Tensor:
    """Kullback-Leibler divergence of the model's probabilities from the annotators' shares."""
    shares = annotators.values[place]
    told = logits.gather(1, annotators.classes[place]).float() - whole[:, None]
    nats = torch.where(shares > 0, shares * (shares.log() - told), 0.0).double().sum(dim=1)
    return nats.masked_fill(shares.sum(dim=1) == 0, torch.nan)


def _most_probable(logits: torch.Tensor, best: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes and probabilities [batch, min(5, C)]; `best` [batch] first, whatever ties with it."""
    first = best[:, None]
    rest = logits.scatter(1, first, -torch.inf).topk(min(TOP, logits.shape[1]) - 1)
    chosen = torch.cat([first, rest.indices], dim=1)
    return chosen, logits.float().softmax(dim=1).gather(1, chosen)


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
        unanswerable=_unanswerable(part, outputs),
        confidence=_of(outputs.confidence, chosen),
        fitted_confidence=_of(outputs.fitted_confidence, chosen),
        divergence=_of(outputs.divergence, chosen),
        question_type=part.joined.split.question_type[part.joined.kept[chosen]],
        image=part.joined.image[chosen],
        in_vocabulary=part.in_vocabulary[part.labelled],
        all_predicted=np.concatenate([outputs.predicted[part.labelled], instead]),
        references=part.references,
        not_finite=int((~outputs.finite).sum()),
    )


def _of(
    values: npt.NDArray[np.float64] | None, chosen: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64] | None:
    return None if values is None else values[chosen]


def _unanswerable(
    part: Part, outputs: Outputs
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]] | None:
    if outputs.unanswerable is None:
        return None
    split, chosen = part.joined.split, part.answered
    truth = split.question_types.index(UNANSWERABLE)
    told = split.question_type[part.joined.kept[chosen]] == truth
    return told, outputs.unanswerable[chosen]
