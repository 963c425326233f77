"""Choosing runs by their settings and figures: `ls --where KEY=VALUE --sort KEY`."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.components.lookup import did_you_mean
from train.errors import TrainError
from train.loop.layout import CONFIG, IDENTITY
from train.runs.database import shown_command
from train.runs.records import Cell, cell
from train.runs.registry import Registry
from vqa_cache.experiments import parse_value

COLUMNS = ("run", "experiment", "status", "reason", "config", "data", "code", "began", "ended")
_NUMBER = r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?"
_RANGE = re.compile(rf"(?P<low>{_NUMBER})?:(?P<high>{_NUMBER})?", re.IGNORECASE)
_NAMED = 5

# each key is found in the index: with 30,000 runs a DISTINCT would read two million rows
_KEYS = """
WITH RECURSIVE known (key) AS (
    SELECT min(key) FROM run_values
    UNION ALL
    SELECT (SELECT min(key) FROM run_values WHERE key > known.key) FROM known
    WHERE known.key IS NOT NULL)
SELECT key FROM known WHERE key IS NOT NULL
"""


@dataclass(frozen=True)
class Condition:
    """KEY=VALUE, or KEY=LOW:HIGH for a closed range of numbers, either end open."""

    key: str
    value: Cell = None
    low: float | None = None
    high: float | None = None

    def sql(self, column: str) -> tuple[str, list[Cell]]:
        """As a condition on a column, with its parameters."""
        if self.low is None and self.high is None:
            return f"{column} = ?", [self.value]
        # SQLite sorts every text behind every number
        terms = [f"typeof({column}) IN ('integer', 'real')"]
        given: list[Cell] = []
        for sign, end in ((">=", self.low), ("<=", self.high)):
            if end is not None:
                terms.append(f"{column} {sign} ?")
                given.append(end)
        return " AND ".join(terms), given


def parse_condition(text: str) -> Condition:
    """A --where. Raises TrainError where it is not KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise TrainError(
            f"--where {text}: expected KEY=VALUE or KEY=LOW:HIGH, for example head.name=cosine"
        )
    found = _RANGE.fullmatch(value)
    if found and any(found.groups()):
        try:
            ends = {name: float(end) for name, end in found.groupdict().items() if end is not None}
        except ValueError:
            return Condition(key, cell(parse_value(value)))
        return Condition(key, **ends)
    return Condition(key, cell(parse_value(value)))


def known_keys(db: sqlite3.Connection) -> list[str]:
    """Every key that any run has."""
    return [*COLUMNS, *(row[0] for row in db.execute(_KEYS))]


def check_keys(db: sqlite3.Connection, keys: Sequence[str]) -> None:
    """Raises TrainError for a key that no run has, naming near ones."""
    known = known_keys(db)
    for key in keys:
        if key not in known:
            raise TrainError(
                f"no run has a setting or figure {key!r}{did_you_mean(key, known)}; "
                "`show RUN` lists those of a run"
            )


def select_runs(
    registry: Registry,
    *,
    where: Sequence[Condition] = (),
    sort: str | None = None,
    reverse: bool = False,
    show: Sequence[str] = (),
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Runs that fulfil all conditions, each as a dict of the keys in `show`.

    Args:
        show: keys, also such as no run has.
        sort: a key; runs without a value come last either way. None: by the time they began.

    Raises:
        TrainError: no run has a key to filter or sort by.
    """
    check_keys(registry.db, [*(item.key for item in where), *([sort] if sort else [])])
    joins: list[str] = []
    joined: dict[str, str] = {}
    given: list[Cell] = []

    def column(key: str, join: str = "LEFT JOIN") -> str:
        if key in COLUMNS:
            return f"runs.{key}"
        if key not in joined:
            name = joined[key] = f"v{len(joins)}"
            joins.append(
                f"{join} run_values {name} INDEXED BY run_values_by_key"
                f" ON {name}.run = runs.id AND {name}.key = ?"
            )
            given.append(key)
        return f"{joined[key]}.value"

    terms: list[str] = []
    wanted: list[Cell] = []
    for condition in where:
        term, values = condition.sql(column(condition.key, "JOIN"))
        terms.append(term)
        wanted += values
    chosen = [column(key) for key in show]
    order = column(sort) if sort else "runs.began"
    query = (
        f"SELECT {', '.join(chosen)} FROM runs {' '.join(joins)}"
        + (f" WHERE {' AND '.join(terms)}" if terms else "")
        + f" ORDER BY {order} IS NULL, {order} {'DESC' if reverse else 'ASC'}, runs.run"
        + (f" LIMIT {int(limit)}" if limit is not None else "")
    )
    return [dict(zip(show, row, strict=True)) for row in registry.db.execute(query, given + wanted)]


def find_run(registry: Registry, text: str) -> str:
    """The id of the run that a path, an id, or a unique prefix of one means.

    Raises:
        TrainError: none or several.
    """
    found = named_runs(registry, text)
    if len(found) == 1:
        return found[0]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    raise TrainError(
        f"{text!r} means several runs: {', '.join(found[:_NAMED])}{more}; type more of the id"
    )


def named_runs(registry: Registry, text: str) -> list[str]:
    """The runs that a path, an id, an experiment's name or the beginning of an id means, by id.
    Raises TrainError where there is none."""
    path = Path(text)
    if (path / CONFIG).is_file() or (path / IDENTITY).is_file():
        if path.resolve().parent != registry.runs.resolve():
            raise TrainError(f"{path} is not in {registry.runs}; name its folder with --runs")
        return [path.resolve().name]
    rows = registry.db.execute("SELECT run, experiment FROM runs ORDER BY run").fetchall()
    names = [row[0] for row in rows]
    if text in names:
        return [text]
    found = [run for run, experiment in rows if experiment == text]
    found = found or [name for name in names if name.startswith(text)]
    if not found:
        raise TrainError(
            f"no run {text!r} in {registry.runs}{did_you_mean(text, names)}; "
            f"`{shown_command('ls', registry.runs)}` lists them"
        )
    return found
