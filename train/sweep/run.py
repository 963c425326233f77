"""The main path of a sweep: propose -> group -> train packs -> record; then the winners alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy
import optuna
import torch

from train.components.families import CHOSEN
from train.config.identity import code_digest, component_names
from train.errors import TrainError
from train.loop.progress import say
from train.loop.training_loop import Watch
from train.sweep.engine import Data, Engine, Pack, run_packs
from train.sweep.pack import Outcome, Status, group
from train.sweep.propose import Params, Told, importance, round_bounds
from train.sweep.record import Record, Row
from train.sweep.request import Request, Trial, next_trials
from train.sweep.space import DATA_KEYS, Choice, Space, values_of
from train.sweep.winners import train_winners
from vqa_cache.experiments import parse_value
from vqa_cache.keys import json_digest

PRECISIONS = "precisions"  # in sweep.toml: data key -> what its trials compute in


def sweep(
    request: Request, *, cache: Path, runs: Path, watch: Watch, engine: Engine = run_packs
) -> dict[str, Any]:
    """Run a sweep, or what is left of it; the object that `--json` prints.

    Args:
        engine: trains the packs of a round; the outcomes do not depend on which one does.

    Raises:
        TrainError: a user's error, with one clear line each.
        Stopped: a signal came; finished packs are kept.
    """
    check_first_trials(request)
    data, console = Data(cache), watch.console
    settings = settings_of(request, data)
    folder = runs / sweep_id(request.space.experiments, settings)
    say(console, f"{folder.name}: {request.trials:,} trials of each experiment")
    with Record(folder, {**settings, PRECISIONS: data.precisions}) as record:
        data.precisions = record.settings[PRECISIONS]  # what they were when it began
        if record.rows:
            say(console, f"{len(record.rows):,} trials are kept from before")
        campaign = Campaign(request, data, record, watch, engine)
        trials = [
            trial
            for place, name in enumerate(request.space.experiments)
            for trial in campaign.run(name, place * request.trials)
        ]
        rows = [record.rows[trial.number] for trial in trials]
        del data, campaign  # the winners read their own
        winners = train_winners(request, trials, rows, cache=cache, runs=runs, watch=watch)
    return {"sweep": str(folder), **summary(request, trials, rows), "winners": winners}


def check_first_trials(request: Request) -> None:
    """Propose what depends on no result: every trial, of TPE those of the first round. Raises
    ConfigError for values that do not go together, before anything is read or trained."""
    first = round_bounds(request.sampler, request.trials, request.lanes)[0]
    for place, name in enumerate(request.space.experiments):
        next_trials(request, name, place * request.trials, first, [])


def settings_of(request: Request, data: Data) -> dict[str, Any]:
    """Everything that the trials depend on; beside the precisions, `sweep.toml`."""
    space = request.space
    read: dict[str, str] = {}
    configs = {}
    components = dict.fromkeys(varied_components(space))
    varied = [d for d in space.dimensions if d.key.startswith((*DATA_KEYS, "head.name"))]
    choices = [d for d in varied if isinstance(d, Choice)]
    for name in space.experiments:
        config = space.experiment(name, {}).config
        configs[name] = json_digest(config.identity())
        components |= dict.fromkeys(component_names(config))
        for values in itertools.product(*(choice.values for choice in choices)):
            params = dict(zip((choice.key for choice in choices), values, strict=True))
            experiment = space.experiment(name, params)
            read[" ".join([name, *values])] = data(experiment).digest
    return {
        "experiments": list(space.experiments),
        "fixed": list(space.fixed),
        "space": [f"{dimension.key}={dimension}" for dimension in space.dimensions],
        "sampler": request.sampler,
        "pruner": request.pruner,
        "trials": request.trials,
        "seed": request.seed,
        "lanes": request.lanes,
        "configs": json_digest(configs),
        "data": json_digest(read),
        "code": code_digest(components),
        "versions": [f"{m.__name__} {m.__version__}" for m in (numpy, optuna, torch)],
    }


def varied_components(space: Space) -> list[str]:
    """Names of components that trials choose between."""
    keys = [f"{section}.name" for section in CHOSEN]
    choices = [d for d in space.dimensions if isinstance(d, Choice) and d.key in keys]
    return [str(parse_value(text)) for choice in choices for text in choice.values]


def sweep_id(experiments: Sequence[str], settings: Mapping[str, Any]) -> str:
    """`sweep-<experiments>-<12 hex digits>`."""
    names = "+".join(Path(name).stem for name in experiments)
    return f"sweep-{names}-{json_digest(settings)[:12]}"


@dataclass(frozen=True)
class Campaign:
    """A sweep under way."""

    request: Request
    data: Data
    record: Record
    watch: Watch
    engine: Engine

    def run(self, name: str, start: int) -> list[Trial]:
        """All trials of one experiment, numbered from `start`; those that are recorded are not
        trained again."""
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


def summary(request: Request, trials: Sequence[Trial], rows: Sequence[Row]) -> dict[str, Any]:
    """All trials, how they ended, and the importance of each key by experiment."""
    by_number = {row["trial"]: row for row in rows}
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for name in request.space.experiments:
        told = [
            told_by(trial.params, by_number[trial.number])
            for trial in trials
            if trial.experiment == name
        ]
        found[name], reason = importance(request.space, told)
        if reason is not None:
            reasons[name] = reason
    statuses = [row["status"] for row in rows]
    return {
        "counts": {status: statuses.count(status) for status in get_args(Status)},
        "trials": [{key: value for key, value in row.items() if key != "of_pack"} for row in rows],
        "importance": {**found, "reasons": reasons},
    }
