"""A sweep as the page tells it: its trials, and what decided which of them are good."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.errors import TrainError
from train.report.table import Column, Table
from train.runs.details import describe_sweep
from train.runs.registry import Registry
from train.sweep.propose import Told, importance
from train.sweep.space import Range, Space, parse_space
from vqa_cache.experiments import parse_value


@dataclass(frozen=True)
class ReportedSweep:
    """What the page says about a sweep.

    Attributes:
        space: what was varied.
        trials: as recorded, with `params`, `value`, `status` and `experiment`, the best first.
        settings: as the sweep was asked for.
        importance: experiment's name -> key -> its share; `reasons` where there is none.
    """

    name: str
    space: Space
    trials: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    importance: Mapping[str, Mapping[str, float]]
    reasons: Mapping[str, str]


def read(registry: Registry, name: str) -> ReportedSweep:
    """Read a sweep. Raises TrainError where no trial of it has ended, or its settings cannot be
    read any more."""
    described = describe_sweep(registry, name)
    if described is None or not described["trials"]:
        raise TrainError(f"{name}: no trial has ended yet; the same sweep command goes on")
    settings = described["settings"]
    words = [word for key in ("experiments", "fixed", "space") for word in settings[key]]
    space = parse_space(words)
    trials = [{**trial, **trial["more"]} for trial in described["trials"]]
    shares, reasons = {}, {}
    for experiment in space.experiments:
        told = [_told(t, space) for t in trials if t["experiment"] == experiment]
        found, why = importance(space, told)
        if found is None:
            reasons[Path(experiment).stem] = str(why)
        else:
            shares[Path(experiment).stem] = found
    trials.sort(key=lambda t: (t["status"] != "finished", -(t["value"] or 0.0), t["trial"]))
    return ReportedSweep(name, space, trials, settings, shares, reasons)


def _told(trial: Mapping[str, Any], space: Space) -> Told:
    params = {d.key: _typed(d, trial["params"][d.key]) for d in space.dimensions}
    pruned = trial["epochs"] if trial["status"] == "pruned" else None
    return Told(params, trial["value"], pruned)


def _typed(dimension: Any, value: Any) -> str:
    """A recorded value as it was typed."""
    if isinstance(dimension, Range):
        return str(value)
    return next(text for text in dimension.values if parse_value(text) == value)


def trials_table(sweep: ReportedSweep) -> Table:
    """A row a trial."""
    keys = [dimension.key for dimension in sweep.space.dimensions]
    several = len(sweep.space.experiments) > 1
    columns = [
        Column("trial", "count"),
        *([Column("experiment")] if several else []),
        *(Column(key, "number") for key in keys),
        Column("accuracy", "bar"),
        Column("epoch", "number"),
        Column("status"),
    ]
    rows = [
        [
            trial["trial"],
            *([Path(trial["experiment"]).stem] if several else []),
            *(_plain(trial["params"][key]) for key in keys),
            trial["value"],
            trial["epoch"],
            trial["status"],
        ]
        for trial in sweep.trials
    ]
    return Table(columns, rows, keys=[f"trial-{trial['trial']}" for trial in sweep.trials])


def importance_table(shares: Mapping[str, float]) -> Table:
    """Each key's share, the largest first."""
    rows = sorted(shares.items(), key=lambda item: -item[1])
    return Table([Column("key"), Column("importance", "bar")], rows)


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else json.dumps(value)
