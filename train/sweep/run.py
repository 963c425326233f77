"""The main path of a sweep: propose -> group -> train a pack -> record; then the winners alone."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy
import optuna
import torch

import vqa_cache
from train.config import Config, Experiment
from train.errors import ConfigError, DivergedError, TrainError
from train.fit import Watch
from train.identity import code_digest, user_files
from train.progress import say
from train.runs.folder import load_run
from train.sweep.pack import Outcome, Pruner, Status, group, train_pack
from train.sweep.propose import Params, Sampler, Told, importance, propose, round_bounds
from train.sweep.record import Record, Row
from train.sweep.space import DATA_KEYS, Choice, Space, values_of
from train.trainer import train
from train.training_data import TrainingData, load_data
from vqa_cache.keys import json_digest

WINNER_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        trials: of each experiment.
        lanes: how many trials share a pass at most.
        winners: how many trials of each experiment are trained again, alone.
    """

    space: Space
    sampler: Sampler
    pruner: Pruner
    trials: int
    seed: int
    lanes: int
    winners: int


@dataclass(frozen=True)
class Trial:
    """Settings with a number; numbers run through all experiments."""

    number: int
    experiment: str
    params: Params
    config: Config


class Data:
    """Training data of an experiment; what was read last is kept."""

    def __init__(self, cache: Path) -> None:
        self.cache = vqa_cache.open(cache)
        self._key = ""
        self._kept: TrainingData | None = None

    def __call__(self, experiment: Experiment) -> TrainingData:
        """Raises TrainError as load_data does."""
        key = data_key(experiment.config)
        if self._kept is None or key != self._key:
            self._key, self._kept = key, None  # never two at once
            self._kept = load_data(experiment, self.cache)
        return self._kept


def data_key(config: Config) -> str:
    """Configs with the same key read the same data; a head may ask for the answers' vectors."""
    read = config.model_dump(include={"features", "answers", "data_seed", "load"})
    train = (config.train.precision, config.train.overfit)
    return json_digest({**read, "train": train, "head": config.head.name})


def sweep(request: Request, *, cache: Path, runs: Path, watch: Watch) -> dict[str, Any]:
    """Run a sweep, or what is left of it; the object that `--json` prints.

    Raises:
        TrainError: a user's error, with one clear line each.
        Stopped: a signal came; finished packs are kept.
    """
    data, console = Data(cache), watch.console
    settings = settings_of(request, data)
    folder = runs / sweep_id(request.space.experiments, settings)
    say(console, f"{folder.name}: {request.trials:,} trials of each experiment")
    with Record(folder, settings) as record:
        if record.rows:
            say(console, f"{len(record.rows):,} trials are kept from before")
        trials = [
            trial
            for place, name in enumerate(request.space.experiments)
            for trial in run_experiment(request, name, place * request.trials, data, record, watch)
        ]
        rows = sorted(record.rows, key=lambda row: row["trial"])
        del data  # the winners read their own
        winners = train_winners(request, trials, rows, cache=cache, runs=runs, watch=watch)
    return {"sweep": str(folder), **summary(request, trials, rows), "winners": winners}


def settings_of(request: Request, data: Data) -> dict[str, Any]:
    """Everything that a sweep's outcome depends on; `sweep.toml`."""
    space = request.space
    read: dict[str, str] = {}
    configs = {}
    code: dict[Path, None] = {}
    varied = [d for d in space.dimensions if d.key.startswith((*DATA_KEYS, "head.name"))]
    choices = [d for d in varied if isinstance(d, Choice)]
    for name in space.experiments:
        config = space.experiment(name, {}).config
        configs[name] = json_digest(config.identity())
        code |= dict.fromkeys(user_files(config))
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
        "winners": request.winners,
        "configs": json_digest(configs),
        "data": json_digest(read),
        "code": code_digest(tuple(code)),
        "versions": [f"{m.__name__} {m.__version__}" for m in (numpy, optuna, torch)],
    }


def sweep_id(experiments: Sequence[str], settings: Mapping[str, Any]) -> str:
    """`sweep-<experiments>-<12 hex digits>`."""
    names = "+".join(Path(name).stem for name in experiments)
    return f"sweep-{names}-{json_digest(settings)[:12]}"


def run_experiment(
    request: Request, name: str, start: int, data: Data, record: Record, watch: Watch
) -> list[Trial]:
    """All trials of one experiment, numbered from `start`; those that are recorded are not
    trained again."""
    rows = {row["trial"]: row for row in record.rows}
    done: list[Trial] = []
    told: list[Told] = []
    for first, last in round_bounds(request.sampler, request.trials, request.lanes):
        trials = next_trials(request, name, start, (first, last), told)
        packs = group([trial.config for trial in trials], request.lanes)
        for number, places in enumerate(packs, start=1):
            pack = [trials[place] for place in places]
            if all(trial.number in rows for trial in pack):
                check_recorded(pack, rows, record)
                continue
            what = f"{name}, trials {start + first} to {start + last - 1}, pack {number}"
            experiment = request.space.experiment(name, pack[0].params)
            outcomes = train_pack(
                [trial.config for trial in pack],
                data(experiment),
                pruner=request.pruner,
                what=f"{what} of {len(packs)}",
                watch=watch,
            )
            record.append([row_of(t, o) for t, o in zip(pack, outcomes, strict=True)])
            rows = {row["trial"]: row for row in record.rows}
        done += trials
        told = [told_by(trial.params, rows[trial.number]) for trial in done]
    return done


def next_trials(
    request: Request, name: str, start: int, bounds: tuple[int, int], told: Sequence[Told]
) -> list[Trial]:
    """Proposals of one round. Raises ConfigError for values that do not go together."""
    first, last = bounds
    proposed = propose(
        request.space,
        request.sampler,
        seed=request.seed,
        first=first,
        count=last - first,
        told=told,
    )
    trials = []
    for number, params in enumerate(proposed, start=start + first):
        try:
            config = request.space.experiment(name, params).config
        except ConfigError as error:
            chosen = " ".join(f"{key}={text}" for key, text in params.items())
            raise ConfigError([f"{line} (with {chosen})" for line in error.lines]) from None
        trials.append(Trial(number, name, params, config))
    return trials


def check_recorded(pack: Sequence[Trial], rows: Mapping[int, Row], record: Record) -> None:
    """Recorded trials are those that are proposed now. Raises TrainError."""
    for trial in pack:
        if rows[trial.number]["params"] != values_of(trial.params):
            raise TrainError(
                f"{record.path}: trial {trial.number} has {rows[trial.number]['params']}, expected "
                f"{values_of(trial.params)}; the file was changed: remove the folder to begin again"
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


def ranked(rows: Sequence[Row], name: str) -> list[Row]:
    """Trials of an experiment that trained to the end, the best first."""
    own = [row for row in rows if row["experiment"] == name and row["status"] == "finished"]
    return sorted(own, key=lambda row: (-row["value"], row["cross_entropy"] or 0.0, row["trial"]))


def train_winners(
    request: Request,
    trials: Sequence[Trial],
    rows: Sequence[Row],
    *,
    cache: Path,
    runs: Path,
    watch: Watch,
) -> list[dict[str, Any]]:
    """The best trials of each experiment as ordinary runs without baselines, best mean first.

    The best of many trials is partly lucky: these runs, with seeds of their own, are not.
    """
    by_number = {trial.number: trial for trial in trials}
    found = []
    for name in request.space.experiments:
        for row in ranked(rows, name)[: request.winners]:
            say(watch.console, f"{name}, trial {row['trial']} alone with seeds {WINNER_SEEDS}")
            trial = by_number[row["trial"]]
            found.append(
                train_alone(request, trial, row["value"], cache=cache, runs=runs, watch=watch)
            )
    return sorted(found, key=lambda winner: (-(winner["mean"] or 0.0), winner["trial"]))


def train_alone(
    request: Request, trial: Trial, value: float, *, cache: Path, runs: Path, watch: Watch
) -> dict[str, Any]:
    """One winner: its runs, their accuracies on the selection part, mean and deviation; without
    them, and with the reason, where a run diverged."""
    params = {key: text for key, text in trial.params.items() if key != "seed"}
    paths, values = [], []
    reason = None
    for seed in WINNER_SEEDS:
        more = (f"seed={seed}", "baselines=off")
        experiment = request.space.experiment(trial.experiment, params, *more)
        try:
            path = train(
                experiment,
                cache=cache,
                runs=runs,
                console=watch.console,
                stopping=watch.stopping,
            )
        except DivergedError as error:
            reason = f"seed {seed}: {error}"
            break
        result = load_run(path).result
        paths.append(str(path))
        values.append(result["metrics"][result["best"]["split"]]["accuracy"])
    return {
        "trial": trial.number,
        "experiment": trial.experiment,
        "params": values_of(params),
        "sweep_value": value,
        "mean": None if reason else statistics.mean(values),
        "deviation": None if reason else statistics.stdev(values),
        "values": values,
        "runs": paths,
        "reason": reason,
    }


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
