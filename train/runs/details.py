"""All about one run or sweep, all runs as a table, and questions in SQL."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import click

from train.errors import TrainError
from train.runs.database import is_damage
from train.runs.registry import Registry
from vqa_cache.system.durable import write_file

_READING = (
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
)


def describe_run(registry: Registry, run: str) -> dict[str, Any]:
    """A run's columns, values, snapshots and evaluated epochs."""
    query = "SELECT * FROM runs WHERE run = ?"
    row = registry.db.execute(query, [run]).fetchone()
    number = row["id"]
    snapshots = registry.db.execute(
        "SELECT name, step, epoch, validated FROM snapshots WHERE run = ? ORDER BY name", [number]
    )
    epochs = registry.db.execute(
        "SELECT epoch, step, part, name, value FROM metrics WHERE run = ?"
        " ORDER BY step, part, name",
        [number],
    )
    names = ("run", "experiment", "status", "reason", "config", "data", "code", "began", "ended")
    return {
        **{name: row[name] for name in names},
        "path": str(registry.runs / run),
        "values": registry.values(number),
        "snapshots": [dict(item) for item in snapshots],
        "metrics": [dict(item) for item in epochs],
    }


def list_sweeps(registry: Registry) -> list[dict[str, Any]]:
    """Every sweep by id: how many trials it has finished, and the highest value of one."""
    query = (
        "SELECT s.sweep, count(t.trial) AS trials, max(t.value) AS best FROM sweeps s"
        " LEFT JOIN trials t ON t.sweep = s.id AND t.status = 'finished'"
        " GROUP BY s.id ORDER BY s.sweep"
    )
    return [dict(row) for row in registry.db.execute(query)]


def find_sweep(registry: Registry, text: str) -> str | None:
    """The sweep that a path, an id or the unique beginning of one means; None where it means a run,
    or nothing. Raises TrainError where it means several sweeps and no run."""
    name = Path(text).name
    names = [row["sweep"] for row in list_sweeps(registry)]
    if name in names:
        return name
    found = [sweep for sweep in names if sweep.startswith(text)]
    if (
        not found
        or registry.db.execute(
            "SELECT 1 FROM runs WHERE run LIKE ? || '%' LIMIT 1", [text]
        ).fetchone()
    ):
        return None
    if len(found) > 1:
        raise TrainError(f"{text!r} means several sweeps: {', '.join(found)}; type more of the id")
    return found[0]


def describe_sweep(registry: Registry, name: str) -> dict[str, Any] | None:
    """A sweep's settings and trials; None where no sweep has this id."""
    row = registry.db.execute("SELECT * FROM sweeps WHERE sweep = ?", [name]).fetchone()
    if row is None:
        return None
    trials = registry.db.execute(
        "SELECT trial, status, value, params, more FROM trials WHERE sweep = ? ORDER BY trial",
        [row["id"]],
    )
    return {
        "sweep": row["sweep"],
        "path": str(registry.runs / row["sweep"]),
        "settings": json.loads(row["settings"]),
        "trials": [
            dict(t) | {"params": json.loads(t["params"]), "more": json.loads(t["more"])}
            for t in trials
        ],
    }


def write_csv(registry: Registry, file: str) -> int:
    """One row a run, a column for every key that any run has; how many rows there are."""
    rows = list(registry.rows())
    columns = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    if file == "-":
        click.echo(text.getvalue(), nl=False)
    else:
        write_file(Path(file), text.getvalue().encode())
    return len(rows)


def ask(registry: Registry, query: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of a SELECT. Raises TrainError for anything else, or a wrong query."""
    db = registry.db
    if not registry.in_memory:
        db = sqlite3.connect(f"{registry.path.resolve().as_uri()}?mode=ro", uri=True)
    db.set_authorizer(_only_reading)
    try:
        cursor = db.execute(query)
        columns = [item[0] for item in cursor.description or ()]
        rows = [dict(zip(columns, row, strict=True)) for row in cursor]
    except sqlite3.Error as error:
        if is_damage(error):
            raise
        what = " (only SELECT works)" if "not authorized" in str(error) else ""
        raise TrainError(f"sql: {error}{what}") from None
    finally:
        db.set_authorizer(None)
        if db is not registry.db:
            db.close()
    return columns, rows


def _only_reading(action: int, *_: Any) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY
