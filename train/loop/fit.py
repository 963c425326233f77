"""Training one model: steps, evaluations, snapshots; ends with the weights of the best evaluation.

A training that was interrupted goes on from its newest snapshot to the same bytes: order, dropout
and learning rate are functions of the step, and the snapshot holds everything else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from train.config.schema import Config
from train.engine.build import build_step, describe_model, load_weights, model_tensors
from train.engine.model import AnswerModel
from train.engine.outputs import evaluated, run_model
from train.engine.step import TrainingStep
from train.errors import DivergedError
from train.inputs.batch import InputTable
from train.inputs.device import rng_devices
from train.inputs.load import TrainingData
from train.loop.layout import CHECKPOINTS, METRICS
from train.loop.metrics_log import MetricsLog
from train.loop.progress import say
from train.loop.selection import Score, epochs_done, score_of
from train.loop.snapshots import Snapshots, State
from train.loop.training_loop import Taken, TrainingLoop, Watch
from train.metrics.classification import compute
from vqa_cache.system.durable import remove, remove_stale_temporaries
from vqa_cache.system.signals import Stopped


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


class Training(TrainingLoop[TrainingStep]):
    """A model on its way."""

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
        def engine(models: Sequence[AnswerModel], total: int) -> TrainingStep:
            return build_step(config, data, models[0], total_steps=total)

        super().__init__([config], data, tables, engine, what=what, watch=watch)
        self.model = cast(AnswerModel, self.engine.model)
        self.folder = folder
        self.saves = self.due(config.train.snapshot_every)
        self.snapshots = Snapshots(
            folder / CHECKPOINTS,
            scheduled=self.saves,
            keep_last=config.train.keep_last,
            keep_best=config.train.keep_best,
        )
        self.score: Score | None = None
        self.best: Score | None = None
        self._saved: tuple[State, Path] | None = None

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
            self.train()
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
            self.model, epoch, self.best, self.step, self.samples, self.seconds, self.snapshots
        )

    def reached(self) -> bool:
        due = self.score is None or self.score.step < self.step
        if due and self.step in self.evaluations:
            self._evaluate()
        if self.step in self.saves:
            self.save()
        return self._waited_enough()

    def _waited_enough(self) -> bool:
        """Whether the last `train.patience` evaluations were no better than one before them."""
        patience = self.config.train.patience
        if not patience or self.best is None or self.score is None or self.score.step < self.step:
            return False
        return sum(self.best.step < at <= self.step for at in self.evaluations) >= patience

    def losses_read(self, steps: Sequence[Taken]) -> None:
        """Write them into the log."""
        row: dict[str, Any] = {}
        shown = []
        for taken in steps:
            rate = self.engine.lr(taken.step)
            epoch = taken.step // self.per_epoch + 1
            finite = math.isfinite(taken.loss)
            if not finite and not self.engine.leaves_out_overflows():
                raise self._not_finite(f"the loss is {taken.loss}", taken.step, rate)
            loss = taken.loss if finite else None
            row = {"step": taken.step + 1, "epoch": epoch, "train_loss": loss, "lr": rate}
            if taken.norm is not None:
                shown.append(row)
                if taken.norm.isfinite():  # in fp16 a step may overflow and be left out
                    row["gradient_norm"] = taken.norm.item()
            self.log.row(row)
        if not shown or shown[-1] is not row:
            shown.append(row)
        speed = self.samples / self.seconds
        for told in shown:
            self.watch.row({**told, "samples_per_second": speed})
        self.progress.steps(self.step, steps[-1].loss, speed)

    def _not_finite(self, what: str, step: int, rate: float) -> DivergedError:
        last = f"the last finite snapshot is {self._saved[1]}" if self._saved else "no snapshot yet"
        return DivergedError(
            f"{self.what}: step {step + 1} (epoch {step // self.per_epoch + 1}): {what} at "
            f"learning rate {rate:.3g}; {last}; lower optimizer.lr, add schedule.warmup_steps, or "
            "look for values that are not finite in the table"
        )

    def _evaluate(self) -> None:
        self.read_losses()
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
        self.read_losses()
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
