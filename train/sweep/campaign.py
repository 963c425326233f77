"""From proposals to recorded outcomes, round by round.

A sweep's id covers the text of this module and of all that it can execute; an engine is given to
it, so one that trains elsewhere is not among that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from train.errors import TrainError
from train.fit import Watch
from train.sweep.engine import Data, Engine, Pack
from train.sweep.pack import Outcome, group
from train.sweep.propose import Params, Told, round_bounds
from train.sweep.record import Record, Row
from train.sweep.request import Request, Trial, next_trials
from train.sweep.space import values_of


@dataclass(frozen=True)
class Campaign:
    """A sweep under way.

    Attributes:
        engine: trains the packs of a round; the outcomes do not depend on which one does.
    """

    request: Request
    data: Data
    record: Record
    watch: Watch
    engine: Engine

    def run(self) -> list[Trial]:
        """All trials; those that are recorded are not trained again."""
        names = enumerate(self.request.space.experiments)
        return [
            trial
            for place, name in names
            for trial in self._run_experiment(name, start=place * self.request.trials)
        ]

    def _run_experiment(self, name: str, *, start: int) -> list[Trial]:
        request = self.request
        done: list[Trial] = []
        told: list[Told] = []
        for bounds in round_bounds(request.sampler, request.trials, request.lanes):
            trials = next_trials(request, name, start, bounds, told)
            self._train(trials)
            done += trials
            told = [told_by(trial.params, self.record.rows[trial.number]) for trial in done]
        return done

    def _train(self, trials: Sequence[Trial]) -> None:
        """Train the packs of a round that are not recorded yet, and record each as it ends."""
        groups = group([trial.config for trial in trials], self.request.lanes)
        members = [[trials[place] for place in places] for places in groups]
        left: list[tuple[list[Trial], Pack]] = []
        for number, own in enumerate(members, start=1):
            if all(trial.number in self.record.rows for trial in own):
                check_recorded(own, self.record)
                continue
            span = f"trials {trials[0].number} to {trials[-1].number}"
            what = f"{own[0].experiment}, {span}, pack {number} of {len(groups)}"
            read = self.request.space.experiment(own[0].experiment, own[0].params)
            configs = tuple(trial.config for trial in own)
            left.append((own, Pack(read, configs, self.request.pruner, what)))
        packs = [pack for _, pack in left]
        for place, outcomes in self.engine(packs, self.data, self.watch):
            own, _ = left[place]
            self.record.append([row_of(t, o) for t, o in zip(own, outcomes, strict=True)])


def check_recorded(pack: Sequence[Trial], record: Record) -> None:
    """Recorded trials are those that are proposed now. Raises TrainError."""
    for trial in pack:
        found, expected = record.rows[trial.number]["params"], values_of(trial.params)
        if found != expected:
            raise TrainError(
                f"{record.path}: trial {trial.number} has {found}, expected {expected}; the file "
                "was changed: remove the folder to begin again"
            )


def row_of(trial: Trial, outcome: Outcome) -> Row:
    """A line of trials.jsonl; no clock in it."""
    score = outcome.score
    finite = score is not None and score.cross_entropy != float("inf")
    return {
        "trial": trial.number,
        "experiment": trial.experiment,
        "params": values_of(trial.params),
        "value": score.accuracy if score else None,
        "cross_entropy": score.cross_entropy if score and finite else None,
        "epoch": outcome.epoch,
        "epochs": outcome.epochs,
        "status": outcome.status,
    }


def told_by(params: Params, row: Row) -> Told:
    """What Optuna hears about a recorded trial."""
    return Told(params, row["value"], row["epochs"] if row["status"] == "pruned" else None)
