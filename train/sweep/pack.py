"""Trials that share a pass: finding them, and training them together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from torch import nn

from train.components.families import CHOSEN, LOSS, OPTIMIZER, Family
from train.components.lookup import Factory, find_factory
from train.config.schema import Component, Config, hidden_widths
from train.engine.build import build_clipping, build_loss, build_schedule
from train.engine.model import AnswerModel
from train.engine.outputs import EVALUATION_BATCH, evaluated
from train.errors import DivergedError
from train.inputs.device import rng_devices
from train.inputs.load import TrainingData
from train.lanes.outputs import run_lanes
from train.lanes.stack import LaneModel
from train.lanes.step import LaneStep
from train.loop.fit import fit
from train.loop.selection import Score, epochs_done, score_of
from train.loop.training_loop import TrainingLoop, Watch
from train.metrics.classification import compute
from vqa_cache.keys import json_digest

Pruner = Literal["none", "halving"]
Status = Literal["finished", "pruned", "diverged"]
FEWEST_ROWS = 256  # of an evaluation, where memory allows: fewer do not fill a product
ACTIVATION_BYTES = 4 << 30
COPIES = 6  # of an activation during a step: itself, normalised, masked, and their gradients


@dataclass(frozen=True)
class Outcome:
    """What a trial came to.

    Attributes:
        score: of its best epoch on the selection part; None where it diverged.
        epoch: that epoch, from 1; 0 where it diverged.
        epochs: how many it trained.
    """

    status: Status
    score: Score | None
    epoch: int | float
    epochs: int | float


def pack_key(config: Config) -> str:
    """Trials with the same key can share a pass: nothing differs but what lanes can hold."""
    differs = lane_keys(config)
    return json_digest({k: value for k, value in config.identity().items() if k not in differs})


def lane_keys(config: Config) -> set[str]:
    """What may differ between lanes of a pass: the seed, and what the components say."""
    chosen = {kind: (family, getattr(config, kind, None)) for kind, family in CHOSEN.items()}
    return {"seed"} | {
        f"{section}.{option}"
        for section, (family, component) in chosen.items()
        if component is not None
        for option in getattr(family.find(component.name), "lane_options", ())
    }


def lane_form(family: Family, component: Component) -> Factory | None:
    """The form with lanes of an optimiser or a loss, if it says one. A class that extends it may
    compute something else, and has to say so itself."""
    form = getattr(family.find(component.name), "__dict__", {}).get("lane_form")
    return None if form is None else find_factory({form: form}, form, family.kind)


def group(configs: Sequence[Config], lanes: int) -> list[list[int]]:
    """Places of configs that share a pass, at most `lanes` together and no more than fit into
    memory, in order of appearance."""
    by_key: dict[str, list[int]] = {}
    for place, config in enumerate(configs):
        by_key.setdefault(pack_key(config), []).append(place)
    packs = []
    for places in by_key.values():
        size = min(lanes, most_lanes(configs[places[0]]))
        packs += [places[start : start + size] for start in range(0, len(places), size)]
    return packs


def most_lanes(config: Config) -> int:
    """Lanes whose activations take at most ACTIVATION_BYTES. A function of the config alone, as
    packs must not depend on what a machine has free."""
    return max(1, ACTIVATION_BYTES // (config.train.batch_size * _bytes_of_an_example(config)))


def evaluation_rows(config: Config, lanes: int) -> int:
    """Examples that lanes evaluate at a time, in no more memory than a training step may take."""
    fitting = ACTIVATION_BYTES // (lanes * _bytes_of_an_example(config))
    return max(1, min(fitting, max(FEWEST_ROWS, EVALUATION_BATCH // lanes)))


def _bytes_of_an_example(config: Config) -> int:
    """What the activations of one example take in one lane."""
    widths = config.answers.k + sum(hidden_widths(config.head))
    return widths * COPIES * torch.float32.itemsize


def rungs(evaluations: frozenset[int], total: int) -> set[int]:
    """Steps after which the worst half stops: an eighth, a quarter and half of all, moved to the
    next one that is evaluated (successive halving, Jamieson and Talwalkar 2016,
    arXiv:1502.07943)."""
    found = {min(step for step in evaluations if step >= total / share) for share in (8, 4, 2)}
    return found - {total}


def train_pack(
    configs: Sequence[Config], data: TrainingData, *, pruner: Pruner, what: str, watch: Watch
) -> list[Outcome]:
    """Train configs of one pack key on the same data; their outcomes, in the same order.

    One pass for all where optimiser and loss have a form with lanes, the precision needs no loss
    scaling and no trial may stop early, otherwise one after another.
    The global random state is left as it was.

    Raises:
        TrainError: an option is out of range.
        Stopped: a signal came; nothing of the pack is kept.
    """
    with torch.random.fork_rng(devices=rng_devices(data.device)):
        first = configs[0]
        forms = lane_form(OPTIMIZER, first.optimizer), lane_form(LOSS, first.loss)
        # lanes have no gradient scaler, and stop together
        if None in forms or data.precision == "fp16" or first.train.patience:
            return [_alone(config, data, what=what, watch=watch) for config in configs]
        return PackTraining(configs, data, pruner=pruner, what=what, watch=watch).run()


def _alone(config: Config, data: TrainingData, *, what: str, watch: Watch) -> Outcome:
    epochs = config.train.epochs
    try:
        with TemporaryDirectory() as folder:
            fitted = fit(
                config, data, modalities=data.tables, what=what, folder=Path(folder), watch=watch
            )
    except DivergedError:
        return Outcome("diverged", None, 0, epochs)
    return Outcome("finished", fitted.score, fitted.epoch, epochs)


class PackTraining(TrainingLoop[LaneStep]):
    """One training of several lanes, of which nothing is kept but how good they were."""

    def __init__(
        self,
        configs: Sequence[Config],
        data: TrainingData,
        *,
        pruner: Pruner,
        what: str,
        watch: Watch,
    ) -> None:
        def engine(models: Sequence[AnswerModel], total: int) -> LaneStep:
            return lane_step(configs, models, data, total_steps=total)

        super().__init__(configs, data, data.tables, engine, what=what, watch=watch)
        self.stops = rungs(self.evaluations, self.total) if pruner == "halving" else set()
        self.trial_of_lane = list(range(len(configs)))
        self.best: list[Score | None] = [None] * len(configs)
        self.outcomes: dict[int, Outcome] = {}

    def run(self) -> list[Outcome]:
        """Train and evaluate until no lane is left."""
        self.train()
        for trial, score in enumerate(self.best):
            self.outcomes.setdefault(trial, self._outcome("finished", score))
        return [self.outcomes[trial] for trial in range(len(self.best))]

    def reached(self) -> bool:
        if self.step in self.evaluations:
            self._evaluate()
            self.progress.evaluated(self.step, self._figures())
        if self.step in self.stops:
            self._halve()
        return all(trial in self.outcomes for trial in self.trial_of_lane)

    def _outcome(self, status: Status, score: Score | None) -> Outcome:
        epoch = epochs_done(score.step, self.per_epoch) if score else 0
        return Outcome(status, score, epoch, epochs_done(self.step, self.per_epoch))

    def _evaluate(self) -> None:
        outputs = run_lanes(
            self.engine.model,
            self.selection,
            self.tables,
            self.data.precision,
            self.engine.loss.temperature,
            rows=evaluation_rows(self.config, len(self.trial_of_lane)),
            stopping=self.watch.stopping,
        )
        classes = len(self.data.vocabulary)
        finite = self.engine.finite.tolist()
        for trial, good, own in zip(self.trial_of_lane, finite, outputs, strict=True):
            if trial in self.outcomes:
                continue
            record = evaluated(self.selection, own, classes)
            values, _ = compute(record, ("accuracy", "cross_entropy"))
            score = score_of(values, self.step) if good else None
            if score is None:
                self.outcomes[trial] = self._outcome("diverged", None)
            elif score.beats(self.best[trial]):
                self.best[trial] = score

    def _halve(self) -> None:
        """Stop the worse half of the lanes that are left; diverged ones leave as well."""
        lanes = [n for n, trial in enumerate(self.trial_of_lane) if trial not in self.outcomes]
        ranked = sorted(lanes, key=lambda lane: self._rank(self.trial_of_lane[lane]))
        kept = sorted(ranked[: math.ceil(len(ranked) / 2)])
        for lane in set(lanes) - set(kept):
            trial = self.trial_of_lane[lane]
            self.outcomes[trial] = self._outcome("pruned", self.best[trial])
        if kept:
            self.engine.keep(torch.tensor(kept))
            self.engine_changed()
            self.trial_of_lane = [self.trial_of_lane[lane] for lane in kept]

    def _rank(self, trial: int) -> tuple[float, float, int]:
        score = self.best[trial]
        assert score is not None  # a lane without a score has diverged
        return -score.accuracy, score.cross_entropy, trial

    def _figures(self) -> str:
        left = sum(trial not in self.outcomes for trial in self.trial_of_lane)
        scores = [score.accuracy for score in self.best if score is not None]
        best = f", best {self.data.selection} accuracy {max(scores):.4f}" if scores else ""
        return f"{left} of {len(self.best)} trials{best}"


def lane_step(
    configs: Sequence[Config], models: Sequence[nn.Module], data: TrainingData, *, total_steps: int
) -> LaneStep:
    """The step of all lanes; what no lane can have of its own is taken from the first config."""
    model = LaneModel(models, [config.seed for config in configs])
    optimizer, loss = configs[0].optimizer, configs[0].loss
    make_optimizer, make_loss = lane_form(OPTIMIZER, optimizer), lane_form(LOSS, loss)
    assert make_optimizer is not None
    assert make_loss is not None
    differ = getattr(OPTIMIZER.find(optimizer.name), "lane_options", ())
    by_lane = {option: _by_lane(configs, option).to(data.device) for option in differ}
    return LaneStep(
        model,
        make_loss([build_loss(config, data) for config in configs], data.device),
        make_optimizer(model.parameters(), model.decays, **optimizer.options | by_lane),
        schedule=build_schedule(configs[0], total_steps),
        precision=data.precision,
        clipping=build_clipping(configs[0]),
    )


def _by_lane(configs: Iterable[Config], option: str) -> torch.Tensor:
    values = [float(config.optimizer.options[option]) for config in configs]
    return torch.tensor(values, dtype=torch.float64)
