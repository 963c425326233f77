"""Training one model: steps, evaluations, snapshots; ends with the weights of the best evaluation.

A training that was interrupted goes on from its newest snapshot to the same bytes: order, dropout
and learning rate are functions of the step, and the snapshot holds everything else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from train.config.schema import Config
from train.engine.build import (
    build_model,
    build_step,
    check_batch_norm,
    describe_model,
    load_weights,
    model_tensors,
    targets_of,
    trainable,
)
from train.engine.cuda_graph import CannotCaptureError, CapturedSteps
from train.engine.model import AnswerModel
from train.engine.outputs import evaluated, run_model
from train.engine.sharing import find_sharing
from train.engine.step import EagerSteps, Steps
from train.errors import DivergedError
from train.inputs.batch import InputTable, batches_of
from train.inputs.device import rng_devices
from train.inputs.load import TrainingData
from train.inputs.order import SampleOrder
from train.loop.layout import CHECKPOINTS, METRICS
from train.loop.metrics_log import MetricsLog
from train.loop.progress import TrainingProgress, say
from train.loop.selection import Score, epochs_done, milestones, score_of
from train.loop.snapshots import Snapshots, State
from train.metrics.classification import compute
from vqa_cache.system.device import CPU
from vqa_cache.system.durable import remove, remove_stale_temporaries
from vqa_cache.system.signals import Stopped

READ_LOSSES_EVERY = 50  # steps; on a GPU, where reading them waits, they are read once an epoch


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
class Fitted:
    """A trained model with its best weights.

    Attributes:
        epoch: when they were reached, from the beginning; a fraction between two epochs.
        samples, seconds: training examples seen since the last start, and the time of their steps.
    """

    model: AnswerModel
    epoch: int | float
    score: Score
    steps: int
    samples: int
    seconds: float
    snapshots: Snapshots


def fit(
    config: Config,
    data: TrainingData,
    *,
    modalities: Iterable[str],
    what: str,
    folder: Path,
    watch: Watch,
) -> Fitted:
    """Train one model, or go on with it; the global random state is left as it was.

    Args:
        modalities: which inputs it sees.
        what: its name in the progress display.
        folder: where `metrics.jsonl` and `checkpoints/` belong.

    Raises:
        TrainError: an option is out of range, the loss is not finite (with step, rate and the last
            snapshot), or every snapshot is damaged.
        Stopped: after a snapshot.
    """
    with torch.random.fork_rng(devices=rng_devices(data.device)):
        tables = {modality: data.tables[modality] for modality in modalities}
        training = Training(config, data, tables, what=what, folder=folder, watch=watch)
        training.restore()
        return training.run()


class Training:
    """A model on its way. `step` counts the steps done."""

    def __init__(
        self,
        config: Config,
        data: TrainingData,
        tables: Mapping[str, InputTable],
        *,
        what: str,
        folder: Path,
        watch: Watch,
    ) -> None:
        self.config, self.data, self.tables = config, data, tables
        self.what, self.folder, self.watch = what, folder, watch
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
        self.model = build_model(config, data, tables)
        check_batch_norm(self.model, self.order.smallest)
        self.sharing = find_sharing(self.model, self.part, tables, self.order, data.precision)
        self.engine = build_step(config, data, self.model, total_steps=self.total)
        pace = {"steps_per_epoch": self.per_epoch, "total": self.total}
        self.evaluations = milestones(config.train.evaluate_every, **pace)
        self.saves = milestones(config.train.snapshot_every, **pace)
        self.snapshots = Snapshots(
            folder / CHECKPOINTS,
            scheduled=self.saves,
            keep_last=config.train.keep_last,
            keep_best=config.train.keep_best,
        )
        self.progress = TrainingProgress(what, self.total, self.per_epoch, watch.console)
        self._on_gpu = data.device != CPU
        self.step = 0
        self.score: Score | None = None
        self.best: Score | None = None
        self._saved: tuple[State, Path] | None = None
        self._steps: Steps | None = None
        self._unread: list[tuple[int, torch.Tensor | None]] = []
        self._began: float | None = None
        self._samples, self._seconds = 0, 0.0

    def restore(self) -> None:
        """Take up the newest snapshot, or clear what a training without one left."""
        remove_stale_temporaries(self.folder)
        log = self.folder / METRICS
        snapshot = self.snapshots.latest(log, lambda line: say(self.watch.console, line))
        if snapshot is None:
            remove(self.snapshots.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            self.log = MetricsLog(log)
            return
        load_weights(self.model, snapshot.model)
        self.engine.load(snapshot.training)
        state = snapshot.state
        self.step, self.score, self.best = state.step, state.score, state.best
        self._saved = state, snapshot.path
        self.log = MetricsLog(log, state.log)
        line = f"{self.what}: going on after step {self.step:,} of {self.total:,}"
        say(self.watch.console, f"{line} ({snapshot.path})")

    def run(self) -> Fitted:
        """Train to the end. Raises as `fit` does."""
        for note in self.sharing.notes:
            say(self.watch.console, f"{self.what}: {note}")
        try:
            with self.progress:
                self._run()
        except Stopped as stopped:
            path = self.save()
            step = f"step {self.step:,} of {self.total:,}"
            raise Stopped(f"{self.what}: {stopped} after {step}, kept in {path}") from None
        finally:
            self.log.close()
        assert self.best is not None
        load_weights(self.model, self.snapshots.load_best(self.best))
        epoch = epochs_done(self.best.step, self.per_epoch)
        return Fitted(
            self.model, epoch, self.best, self.step, self._samples, self._seconds, self.snapshots
        )

    def _run(self) -> None:
        while True:
            due = self.score is None or self.score.step < self.step
            if due and self.step in self.evaluations:
                self._evaluate()
            if self.step in self.saves:
                self.save()
            if self.step == self.total or self._waited_enough():
                return
            if self.watch.stopping():
                raise Stopped("stopped by a signal")
            self.train_step()

    def _waited_enough(self) -> bool:
        """Whether the last `train.patience` evaluations were no better than one before them."""
        patience = self.config.train.patience
        if not patience or self.best is None or self.score is None or self.score.step < self.step:
            return False
        return sum(self.best.step < at <= self.step for at in self.evaluations) >= patience

    def train_step(self) -> None:
        """Gather the next batch, update the model, note the loss."""
        if self._steps is None:
            self._steps = self._make_steps()
        if self._began is None:
            self._began = time.perf_counter()
        epoch, number = divmod(self.step, self.per_epoch)
        examples = self.order.batch(epoch, number)
        self._steps(examples, self.step)
        looked_at = self.step % READ_LOSSES_EVERY == 0
        self._unread.append((self.step, self._steps.gradient_norm() if looked_at else None))
        self._samples += len(examples)
        self.step += 1
        if number + 1 == self.per_epoch if self._on_gpu else looked_at:
            self._read_losses()

    def _make_steps(self) -> Steps:
        """Eager steps on a CPU; graphs where rows, examples and model are on a GPU."""
        batch = batches_of(
            self.part,
            targets_of(self.config, self.data),
            self.tables,
            self.sharing.names,
        )
        if self.order.home == CPU or not self.order.sizes:
            return EagerSteps(self.engine, batch)
        try:
            return CapturedSteps(self.engine, batch, self.order.sizes, capacity=self.per_epoch)
        except CannotCaptureError as error:
            say(self.watch.console, f"{self.what}: steps run kernel by kernel: {error}")
            return EagerSteps(self.engine, batch)

    def _read_losses(self) -> None:
        """Write the steps since the last time into the log: the one place that waits for them."""
        if not self._unread or self._steps is None:
            return
        row: dict[str, Any] = {}
        shown = []
        for (step, norm), value in zip(self._unread, self._steps.losses(), strict=True):
            rate = self.engine.lr(step)
            epoch = step // self.per_epoch + 1
            finite = math.isfinite(value)
            if not finite and not self.engine.leaves_out_overflows():
                raise self._not_finite(f"the loss is {value}", step, rate)
            loss = value if finite else None
            row = {"step": step + 1, "epoch": epoch, "train_loss": loss, "lr": rate}
            if norm is not None:
                shown.append(row)
                if norm.isfinite():  # in fp16 a step may overflow and be left out
                    row["gradient_norm"] = norm.item()
            self.log.row(row)
        self._unread.clear()
        self._pause()
        if not shown or shown[-1] is not row:
            shown.append(row)
        for told in shown:
            self.watch.row({**told, "samples_per_second": self._samples / self._seconds})
        self.progress.steps(self.step, value, self._samples / self._seconds)

    def _pause(self) -> None:
        if self._began is not None:
            self._seconds += time.perf_counter() - self._began
            self._began = None

    def _not_finite(self, what: str, step: int, rate: float) -> DivergedError:
        last = f"the last finite snapshot is {self._saved[1]}" if self._saved else "no snapshot yet"
        return DivergedError(
            f"{self.what}: step {step + 1} (epoch {step // self.per_epoch + 1}): {what} at "
            f"learning rate {rate:.3g}; {last}; lower optimizer.lr, add schedule.warmup_steps, or "
            "look for values that are not finite in the table"
        )

    def _evaluate(self) -> None:
        self._read_losses()
        outputs = run_model(
            self.model,
            self.selection,
            self.tables,
            self.data.precision,
            temperature=self.config.temperature,
            stopping=self.watch.stopping,
        )
        record = evaluated(self.selection, outputs, len(self.data.vocabulary))
        values, reasons = compute(record, ("accuracy", "cross_entropy"))
        score = score_of(values, self.step)
        if score is None:
            what = f"on {self.data.selection} {reasons['accuracy']}"
            raise self._not_finite(what, self.step - 1, self.engine.lr(self.step - 1))
        self.score = score
        epoch = epochs_done(self.step, self.per_epoch)
        row = {"step": self.step, "epoch": epoch, "part": self.data.selection, **values}
        self.log.row(row)
        state = State(self.step, self.score, self.score, self.log.sync())
        if self.score.beats(self.best):
            self.best = self.score
            self.snapshots.save_best(state, *self._model_file())
        self.watch.row(row)
        self.watch.evaluated()
        assert self.best is not None
        best = f"best {self.best.accuracy:.4f}"
        figures = f"{self.data.selection} accuracy {self.score.accuracy:.4f}, {best}"
        self.progress.evaluated(self.step, figures)

    def save(self) -> Path:
        """A snapshot of where the training stands, unless it is there already; its path."""
        self._read_losses()
        state = State(self.step, self.score, self.best, self.log.sync())
        if self._saved is None or self._saved[0] != state:
            model, description = self._model_file()
            if not all(bool(tensor.isfinite().all()) for tensor in model.values()):
                what = "the loss was finite, but the update made weights that are not,"
                raise self._not_finite(what, self.step - 1, self.engine.lr(self.step - 1))
            training = {name: tensor.cpu() for name, tensor in self.engine.state().items()}
            path = self.snapshots.save(state, model, training, description)
            self._saved = state, path
        return self._saved[1]

    def _model_file(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        description = {
            "name": self.what,
            "step": self.step,
            "epoch": epochs_done(self.step, self.per_epoch),
            **describe_model(self.config, self.data, self.tables),
        }
        return model_tensors(self.model, self.tables), description
