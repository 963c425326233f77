"""Training one model: epochs of steps, the epoch selected on the selection part, its weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from rich.console import Console
from torch import nn

from train import fusion, heads, losses, optimizers
from train.config import Component, Config
from train.errors import DivergedError, TrainError
from train.evaluate import evaluated, gather, run_model
from train.lookup import Factory, takes
from train.metrics import compute
from train.progress import EpochProgress
from train.seeds import batch_bounds, derive_seed, epoch_order
from train.step import AnswerModel, TrainingStep
from train.tables import ResidentTable
from train.training_data import TrainingData

READ_LOSSES_EVERY = 50  # steps; reading a loss waits for the device


@dataclass(frozen=True)
class Score:
    """How good an epoch is: accuracy, and cross-entropy (nats) between equals."""

    accuracy: float
    cross_entropy: float

    def beats(self, other: Score | None) -> bool:
        """Whether this epoch is to be preferred; of equals the earlier one stays."""
        if other is None or self.accuracy != other.accuracy:
            return other is None or self.accuracy > other.accuracy
        return self.cross_entropy < other.cross_entropy


@dataclass(frozen=True)
class Fitted:
    """A trained model with the weights of the selected epoch.

    Attributes:
        epoch: the selected one, from 1.
        samples, seconds: training examples seen and the time of their steps.
    """

    model: nn.Module
    epoch: int
    score: Score
    steps: int
    samples: int
    seconds: float


@dataclass(frozen=True)
class Listener:
    """What a run wants to hear about: rows for its log, and each evaluated epoch."""

    row: Callable[[dict[str, Any]], None] = lambda _: None
    epoch: Callable[[int, nn.Module, Score], None] = lambda *_: None


def build_model(config: Config, data: TrainingData, modalities: Iterable[str]) -> AnswerModel:
    """Fusion and head with weights drawn from the seed. Raises TrainError for a bad option."""
    torch.manual_seed(derive_seed(config.seed, "weights"))
    sizes = {modality: data.tables[modality].width for modality in modalities}
    join = _make("fusion", fusion.lookup, config.fusion, sizes)
    arguments: list[Any] = [join.out_features, len(data.vocabulary)]
    if takes(heads.lookup(config.head.name), "answer_vectors"):
        arguments.append(data.answer_vectors)
    return AnswerModel(join, _make("head", heads.lookup, config.head, *arguments))


def build_loss(config: Config, data: TrainingData) -> nn.Module:
    """The loss, given the counts of the training part's answers where it takes them."""
    given: list[Any] = []
    if takes(losses.lookup(config.loss.name), "class_counts"):
        given.append(class_counts(data))
    return cast(nn.Module, _make("loss", losses.lookup, config.loss, *given))


def build_schedule(config: Config, total_steps: int) -> optimizers.Schedule:
    """The learning-rate schedule of a run of so many steps."""
    made = _make("schedule", optimizers.lookup_schedule, config.schedule, total_steps)
    return cast(optimizers.Schedule, made)


def trainable(data: TrainingData) -> torch.Tensor:
    """Examples of the training part whose truth is in the vocabulary, int64 [n]."""
    truth = data.parts["train"].truth
    return ((truth >= 0) & (truth < len(data.vocabulary))).nonzero()[:, 0]


def class_counts(data: TrainingData) -> torch.Tensor:
    """How often the training part has each answer of the vocabulary, int64 [answers]."""
    truth = data.parts["train"].truth[trainable(data)]
    return torch.bincount(truth, minlength=len(data.vocabulary))


def _make(section: str, lookup: Callable[[str], Factory], chosen: Component, *given: Any) -> Any:
    try:
        return lookup(chosen.name)(*given, **chosen.options)
    except ValueError as error:
        raise TrainError(f"{section} {chosen.name!r}: {error}") from None


def fit(
    config: Config,
    data: TrainingData,
    *,
    modalities: Iterable[str],
    what: str,
    console: Console,
    listener: Listener | None = None,
) -> Fitted:
    """Train one model and return it with its best epoch's weights.

    The global random state is left as it was.

    Args:
        modalities: which inputs it sees.
        what: its name in the progress display.

    Raises:
        TrainError: an option is out of range, or the loss is not finite (with step and rate).
    """
    with torch.random.fork_rng(devices=[]):
        tables = {modality: data.tables[modality] for modality in modalities}
        progress = EpochProgress(what, config.train.epochs, console)
        return _fit(config, data, tables, progress=progress, listener=listener or Listener())


def _fit(
    config: Config,
    data: TrainingData,
    tables: Mapping[str, ResidentTable],
    *,
    progress: EpochProgress,
    listener: Listener,
) -> Fitted:
    part, selection = data.parts["train"], data.parts[data.selection]
    examples = trainable(data)
    bounds = batch_bounds(len(examples), config.train.batch_size)
    model = build_model(config, data, tables)
    check_batch_norm(model, bounds)
    step = _training_step(config, data, model, total_steps=config.train.epochs * len(bounds))
    best: Score | None = None
    best_epoch, weights, seconds = 0, {}, 0.0
    with progress:
        for epoch in range(config.train.epochs):
            started = time.perf_counter()
            order = examples[epoch_order(len(examples), data_seed=config.data_seed, epoch=epoch)]
            losses_read = _Losses(step, epoch, listener)
            for number, (first, last) in enumerate(bounds, start=epoch * len(bounds)):
                batch = order[first:last]
                inputs = gather(part, tables, batch)
                losses_read.add(number, step(inputs, part.truth[batch], number))
            mean = losses_read.finish()
            seconds += time.perf_counter() - started
            done = epoch + 1
            figures = f"loss {mean:.3f}"
            if done % config.train.evaluate_every == 0 or done == config.train.epochs:
                outputs = run_model(model, selection, tables, config.train.precision)
                record = evaluated(selection, outputs, len(data.vocabulary))
                values, _ = compute(record, ("accuracy", "cross_entropy"))
                score = score_of(values, done)
                listener.row(
                    {"step": done * len(bounds), "epoch": done, "part": data.selection, **values}
                )
                if score.beats(best):
                    best, best_epoch = score, done
                    weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
                listener.epoch(done, model, score)
                figures += f", {data.selection} accuracy {score.accuracy:.4f}"
            progress.epoch(done, figures)
    assert best is not None
    model.load_state_dict(weights)
    steps = config.train.epochs * len(bounds)
    samples = config.train.epochs * len(examples)
    return Fitted(model, best_epoch, best, steps, samples, seconds)


def check_batch_norm(model: nn.Module, bounds: list[tuple[int, int]]) -> None:
    """Raises TrainError for a batch of one example and a model that has no variance over it."""
    smallest = min(last - first for first, last in bounds)
    if smallest == 1 and any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        raise TrainError(
            "batch normalisation needs at least 2 examples in every batch, found a batch of 1; "
            "train on more examples, raise train.batch_size, or set head.batch_norm=false"
        )


def _training_step(
    config: Config, data: TrainingData, model: nn.Module, *, total_steps: int
) -> TrainingStep:
    return TrainingStep(
        model,
        build_loss(config, data),
        _make("optimizer", optimizers.lookup, config.optimizer, model),
        schedule=build_schedule(config, total_steps),
        seed=config.seed,
        precision=config.train.precision,
    )


def score_of(values: Mapping[str, float | None], epoch: int) -> Score:
    """The score of an epoch's metrics. Raises DivergedError where cross-entropy is not finite."""
    accuracy, cross_entropy = values["accuracy"], values["cross_entropy"]
    assert accuracy is not None  # load_data refuses a selection part without labels
    if cross_entropy is None:  # every truth is outside the vocabulary: nothing to compare
        return Score(accuracy, math.inf)
    if not math.isfinite(cross_entropy):
        raise DivergedError(
            f"epoch {epoch}: the cross-entropy of the selection part is not finite; lower "
            "optimizer.lr"
        )
    return Score(accuracy, cross_entropy)


class _Losses:
    """Losses of an epoch's steps, read some at a time so that no step waits for the device."""

    def __init__(self, step: TrainingStep, epoch: int, listener: Listener) -> None:
        self.step = step
        self.epoch = epoch
        self.listener = listener
        self._waiting: list[tuple[int, torch.Tensor]] = []
        self._sum, self._count = 0.0, 0

    def add(self, number: int, loss: torch.Tensor) -> None:
        """Note the loss of a step (from 0)."""
        self._waiting.append((number, loss))
        if len(self._waiting) == READ_LOSSES_EVERY:
            self._read()

    def finish(self) -> float:
        """The mean over the epoch's steps."""
        self._read()
        return self._sum / self._count

    def _read(self) -> None:
        if not self._waiting:
            return
        values = torch.stack([loss for _, loss in self._waiting])
        finite = values.isfinite().tolist()
        for (number, _), value, good in zip(self._waiting, values.tolist(), finite, strict=True):
            rate = self.step.lr(number)
            if not good:
                raise DivergedError(
                    f"step {number + 1} (epoch {self.epoch + 1}): the loss is {value} at learning "
                    f"rate {rate:.3g}; lower optimizer.lr, add schedule.warmup_steps, or look for "
                    "values that are not finite in the table"
                )
            self.listener.row(
                {"step": number + 1, "epoch": self.epoch + 1, "train_loss": value, "lr": rate}
            )
            self._sum, self._count = self._sum + value, self._count + 1
        self._waiting.clear()
