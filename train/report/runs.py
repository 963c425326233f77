"""A finished run as the page tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vqa_cache
from train.config.keys import flatten
from train.errors import TrainError
from train.evaluation.result import headline_split
from train.inputs.tables import find_tables
from train.loop.layout import METRICS
from train.metrics.classification import METRICS as FIGURES
from train.report.judged import Judged, judge
from train.report.table import Column, Table
from train.runs.curves import Curve, read_curves
from train.runs.folder import load_run
from vqa_cache.errors import UserError


@dataclass(frozen=True)
class ReportedRun:
    """What the page says about a run.

    Attributes:
        split: whose figures stand for it.
        settings: dotted key of its config -> value.
        curves: "train loss" (the mean of an epoch's steps), and what was evaluated after each
            epoch, such as "val accuracy".
        judged: its answers; None where they cannot be judged, and `why_not` says why.
        tables: modality of an input -> the table of the cache that it read, where it is there.
    """

    path: Path
    split: str
    settings: Mapping[str, Any]
    result: Mapping[str, Any]
    curves: Mapping[str, Curve]
    judged: Judged | None
    why_not: str | None
    tables: Mapping[str, str]

    @property
    def name(self) -> str:
        """Its id."""
        return self.path.name

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Figures of its split."""
        found: Mapping[str, Any] = self.result["metrics"][self.split]
        return found

    @property
    def selection(self) -> str:
        """The part that selected its epoch."""
        return str(self.result["best"]["split"])

    def baseline(self, name: str, split: str | None = None) -> float | None:
        """Accuracy of a baseline on a split, its own unless said."""
        found = (self.result["baselines"].get(name) or {}).get(split or self.split) or {}
        value = found.get("accuracy")
        return None if value is None else float(value)

    @property
    def shuffled(self) -> Mapping[str, Any] | None:
        """What images of other questions instead of their own make of it, on its split; None where
        that has no interval."""
        found = (self.result["baselines"].get("shuffled_pairs") or {}).get(self.split) or {}
        return found if found.get("visual_gain_low") is not None else None

    @property
    def visual_gain(self) -> float | None:
        """What its own images add, see `train.evaluation.controls`."""
        return None if self.shuffled is None else float(self.shuffled["visual_gain"])

    @property
    def above_question_only(self) -> float | None:
        """Accuracy less that of the question alone."""
        alone, own = self.baseline("question_only"), self.metrics["accuracy"]
        return None if alone is None or own is None else own - alone


def read(path: Path, cache: Path, split: str | None) -> ReportedRun:
    """Read a run and judge its answers.

    Args:
        split: None is the one that stands for the run.

    Raises:
        TrainError: it is not finished, or did not evaluate the split.
    """
    run = load_run(path)
    chosen = split or headline_split(run.result)
    if chosen not in run.result["metrics"]:
        known = ", ".join(run.result["metrics"])
        raise TrainError(f"{path.name}: no figures for split {chosen!r}; it has: {known}")
    judged, why_not, tables = None, None, {}
    try:
        tables = _tables(run.config.features, cache)
        judged = judge(path, run.result, chosen, cache)
    except UserError as error:
        why_not = str(error)
    return ReportedRun(
        path=path,
        split=chosen,
        settings=flatten(run.config.values()),
        result=run.result,
        curves=read_curves(path / METRICS),
        judged=judged,
        why_not=why_not,
        tables=tables,
    )


def _tables(features: Any, cache: Path) -> dict[str, str]:
    opened = vqa_cache.open(cache)
    return {
        name: f"{table.name}, {len(table):,} rows, computed in {table.record.precision}"
        for name, table in find_tables(opened, features, "python -m precompute").items()
    }


def splits_of(result: Mapping[str, Any]) -> Table:
    """Figures of every split of a result, a column each, beside what has to be beaten."""
    splits, baselines = result["metrics"], result["baselines"]
    counts = {"n": "n", "n_left_out": "left out"}
    rows = [[told, *(found[key] for found in splits.values())] for key, told in counts.items()]
    for name in FIGURES:
        values = [found.get(name) for found in splits.values()]
        if any(value is not None for value in values):
            rows.append([name.replace("_", " "), *values])
    for name in (name for name in baselines if name != "reasons"):
        own = baselines[name] or {}
        values = [(own.get(split) or {}).get("accuracy") for split in splits]
        if any(value is not None for value in values):
            rows.append([f"accuracy of {name.replace('_', ' ')}", *values])
    return Table([Column("figure"), *(Column(split, "figure") for split in splits)], rows)


def reasons(run: ReportedRun) -> list[str]:
    """Why figures are missing, one line each."""
    metrics = {
        f"{split}, {name}: {why}": None
        for split, found in run.result["metrics"].items()
        for name, why in found["reasons"].items()
    }
    baselines = (run.result["baselines"].get("reasons") or {}).items()
    return [*metrics, *(f"{name.replace('_', ' ')}: {why}" for name, why in baselines)]


def facts(run: ReportedRun) -> Table:
    """What was run, and on what."""
    result, features = run.result, "features."
    speed, best = result["throughput"], result["best"]
    held_out = " (a tenth of train)" if best["held_out_of_train"] else ""
    rows: list[tuple[str, Any]] = [
        ("experiment", result["experiment"]),
        ("data set", result["dataset"]),
        *((f"{key.removeprefix(features)} (as named)", value)
          for key, value in run.settings.items() if key.startswith((f"{features}image",
          f"{features}text", f"{features}answer_text"))),
        *((f"{name} table", told) for name, told in run.tables.items()),
        ("answers to choose from", result["answers"]),
        ("parameters", result["parameters"]),
        ("steps", result["steps"]),
        ("epoch selected", f"{best['epoch']:g}, by {best['metric']} on {best['split']}{held_out}"),
        ("precision", result["precision"]),
        ("seed", result["seed"]),
        ("samples per second", speed["samples_per_second"]),
        ("seconds to load", speed.get("load_seconds")),
        ("digest of the data", result["cache_digest"]),
        *result["environment"].items(),
        *(("note", note) for note in result["notes"]),
    ]  # fmt: skip
    shown = [
        (name, f"{value:,.4g}" if isinstance(value, float) else
         f"{value:,}" if isinstance(value, int) else value)
        for name, value in rows if value is not None
    ]  # fmt: skip
    return Table([Column("what"), Column("is")], shown)


def settings_table(runs: Sequence[ReportedRun]) -> Table:
    """Every key of the configs with each run's value; rows that differ are marked and first."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    rows = [[key, *(_text(run.settings.get(key)) for run in runs)] for key in keys]
    rows.sort(key=lambda row: len(set(row[1:])) == 1)
    marked = frozenset(n for n, row in enumerate(rows) if len(set(row[1:])) > 1)
    return Table([Column("setting"), *(Column(run.name) for run in runs)], rows, marked)


def _text(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)
