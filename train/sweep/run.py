"""The main path of a sweep: which one it is -> its trials -> the winners alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy
import optuna
import torch

from train.config import COMPONENTS
from train.fit import Watch
from train.identity import code_digest, component_names
from train.keys import parse_value
from train.progress import say
from train.sweep.campaign import Campaign, told_by
from train.sweep.engine import Data, Engine, run_packs
from train.sweep.pack import Status
from train.sweep.propose import importance
from train.sweep.record import Record, Row
from train.sweep.request import Request, Trial
from train.sweep.space import DATA_KEYS, Choice, Space
from train.sweep.winners import train_winners
from vqa_cache.keys import json_digest

CAMPAIGN = "train.sweep.campaign"  # what computes the trials
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
    data, console = Data(cache), watch.console
    settings = settings_of(request, data)
    folder = runs / sweep_id(request.space.experiments, settings)
    say(console, f"{folder.name}: {request.trials:,} trials of each experiment")
    with Record(folder, {**settings, PRECISIONS: data.precisions}) as record:
        data.precisions = record.settings[PRECISIONS]  # what they were when it began
        if record.rows:
            say(console, f"{len(record.rows):,} trials are kept from before")
        trials = Campaign(request, data, record, watch, engine).run()
        rows = [record.rows[trial.number] for trial in trials]
        del data  # the winners read their own
        winners = train_winners(request, trials, rows, cache=cache, runs=runs, watch=watch)
    return {"sweep": str(folder), **summary(request, trials, rows), "winners": winners}


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
        "code": code_digest(CAMPAIGN, components),
        "versions": [f"{m.__name__} {m.__version__}" for m in (numpy, optuna, torch)],
    }


def varied_components(space: Space) -> list[str]:
    """Names of components that trials choose between."""
    keys = [f"{section}.name" for section in COMPONENTS]
    choices = [d for d in space.dimensions if isinstance(d, Choice) and d.key in keys]
    return [str(parse_value(text)) for choice in choices for text in choice.values]


def sweep_id(experiments: Sequence[str], settings: Mapping[str, Any]) -> str:
    """`sweep-<experiments>-<12 hex digits>`."""
    names = "+".join(Path(name).stem for name in experiments)
    return f"sweep-{names}-{json_digest(settings)[:12]}"


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
