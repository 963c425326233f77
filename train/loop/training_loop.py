"""The one loop over steps: of a run, a baseline, and a sweep's pack of lanes."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from rich.console import Console

from train.config.schema import Config
from train.engine.build import build_model, check_batch_norm, targets_of, trainable
from train.engine.cuda_graph import CannotCaptureError, CapturedSteps
from train.engine.model import AnswerModel
from train.engine.sharing import find_sharing
from train.engine.step import EagerSteps, Engine, Steps
from train.inputs.batch import InputTable, batches_of
from train.inputs.load import TrainingData
from train.inputs.order import SampleOrder
from train.loop.progress import TrainingProgress, say
from train.loop.selection import milestones
from vqa_cache.system.device import CPU
from vqa_cache.system.signals import Stopped

READ_LOSSES_EVERY = 50  # steps; on a GPU, where reading them waits, they are read once an epoch
E = TypeVar("E", bound=Engine)


@dataclass(frozen=True)
class Watch:
    """Who looks on while a model trains.

    Attributes:
        stopping: asked between steps; true saves and raises Stopped.
        row: told of every READ_LOSSES_EVERY-th step and of evaluations what metrics.jsonl is told.
        evaluated: called after each evaluation, once its row is durable.
    """

    console: Console
    stopping: Callable[[], bool] = lambda: False
    row: Callable[[Mapping[str, Any]], None] = lambda _: None
    evaluated: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Taken:
    """A step, from 0, its loss, and of every READ_LOSSES_EVERY-th the length of its gradient."""

    step: int
    loss: Any
    norm: torch.Tensor | None


class TrainingLoop(ABC, Generic[E]):
    """What trains on the batches of an order: one model, or several as lanes.

    Attributes:
        step: steps done.
        total: steps of the whole training, `per_epoch` of an epoch.
        evaluations: steps after which it is to be evaluated.
    """

    def __init__(
        self,
        configs: Sequence[Config],
        data: TrainingData,
        tables: Mapping[str, InputTable],
        engine: Callable[[Sequence[AnswerModel], int], E],
        *,
        what: str,
        watch: Watch,
    ) -> None:
        """
        Args:
            configs: of each model; what lanes cannot have of their own is taken from the first.
            tables: the inputs that it sees.
            engine: of the models, in a training of so many steps.
            what: its name in the progress display.
        """
        self.config = config = configs[0]
        self.data, self.tables, self.what, self.watch = data, tables, what, watch
        self.part, self.selection = data.parts["train"], data.parts[data.selection]
        self.trainable = trainable(data)
        self.order = SampleOrder(
            self.part,
            tables,
            self.trainable,
            batch_size=config.train.batch_size,
            data_seed=config.data_seed,
            by=config.train.order,
        )
        self.per_epoch = self.order.steps
        self.total = config.train.epochs * self.per_epoch
        models = [build_model(own, data, tables) for own in configs]
        check_batch_norm(models[0], self.order.smallest)
        self.sharing = find_sharing(models[0], self.part, tables, self.order, data.precision)
        self.engine = engine(models, self.total)
        self.evaluations = self.due(config.train.evaluate_every)
        self.progress = TrainingProgress(what, self.total, self.per_epoch, watch.console)
        self.step = 0
        self._on_gpu = data.device != CPU
        self._steps: Steps | None = None
        self._unread: list[tuple[int, torch.Tensor | None]] = []
        self._began: float | None = None
        self.samples, self.seconds = 0, 0.0

    def due(self, every: float) -> frozenset[int]:
        """Steps after which something is due that is done every so many epochs."""
        return milestones(every, steps_per_epoch=self.per_epoch, total=self.total)

    @abstractmethod
    def reached(self) -> bool:
        """Do what is due after `step` steps; whether that is enough of them."""

    def losses_read(self, steps: Sequence[Taken]) -> None:
        """Told of every step, some time after it."""

    def train(self) -> None:
        """Take the steps that are left. Raises Stopped where a signal came between two."""
        with self.progress:
            while not self.reached() and self.step < self.total:
                if self.watch.stopping():
                    raise Stopped("stopped by a signal")
                self.train_step()

    def train_step(self) -> None:
        """Gather the next batch, update from it, note the loss."""
        if self._steps is None:
            self._steps = self._make_steps()
        if self._began is None:
            self._began = time.perf_counter()
        epoch, number = divmod(self.step, self.per_epoch)
        examples = self.order.batch(epoch, number)
        self._steps(examples, self.step)
        looked_at = self.step % READ_LOSSES_EVERY == 0
        self._unread.append((self.step, self._steps.gradient_norm() if looked_at else None))
        self.samples += len(examples)
        self.step += 1
        if number + 1 == self.per_epoch if self._on_gpu else looked_at:
            self.read_losses()

    def _make_steps(self) -> Steps:
        """Eager steps on a CPU; graphs where rows, examples and model are on a GPU."""
        targets = targets_of(self.config, self.data)
        batch = batches_of(self.part, targets, self.tables, self.sharing.names)
        if self.order.home == CPU or not self.order.sizes:
            return EagerSteps(self.engine, batch)
        try:
            return CapturedSteps(self.engine, batch, self.order.sizes, capacity=self.per_epoch)
        except CannotCaptureError as error:
            say(self.watch.console, f"{self.what}: steps run kernel by kernel: {error}")
            return EagerSteps(self.engine, batch)

    def read_losses(self) -> None:
        """Tell of the steps since the last time: the one place that waits for them."""
        if not self._unread or self._steps is None:
            return
        losses = self._steps.losses()
        if self._began is not None:
            self.seconds += time.perf_counter() - self._began
            self._began = None
        unread, self._unread = self._unread, []
        self.losses_read(
            [Taken(step, loss, n) for (step, n), loss in zip(unread, losses, strict=True)]
        )

    def engine_changed(self) -> None:
        """Steps go on with other tensors: graphs of the old ones are no longer any good."""
        self.read_losses()
        self._steps = None
