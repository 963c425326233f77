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
from train.runs.tabular import print_rows
from vqa_cache.system.durable import write_file

_SHOWN = 10  # evaluated epochs, trials
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


def print_run(described: dict[str, Any]) -> None:
    """For a person: the newest evaluated epochs alone."""
    for name, value in described.items():
        if value is not None and not isinstance(value, dict | list):
            click.echo(f"{name}: {value}")
    click.echo()
    print_rows([{"key": k, "value": v} for k, v in described["values"].items()], ["key", "value"])
    if described["metrics"]:
        click.echo()
        wide: dict[tuple[Any, ...], dict[str, Any]] = {}
        for point in described["metrics"]:
            key = (point["step"], point["part"])
            first = {name: point[name] for name in ("epoch", "step", "part")}
            wide.setdefault(key, first)[point["name"]] = point["value"]
        rows = list(wide.values())[-_SHOWN:]
        print_rows(rows, list(dict.fromkeys(name for row in rows for name in row)))
    if described["snapshots"]:
        click.echo()
        rows = [item | {"validated": bool(item["validated"])} for item in described["snapshots"]]
        print_rows(rows, ["name", "step", "epoch", "validated"])


def describe_sweep(registry: Registry, name: str) -> dict[str, Any] | None:
    """A sweep's settings and trials; None where no sweep has this id."""
    query = "SELECT * FROM sweeps WHERE sweep = ?"
    row = registry.db.execute(query, [Path(name).name]).fetchone()
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


def print_sweep(described: dict[str, Any]) -> None:
    """For a person: the trials with the highest values."""
    trials = described["trials"]
    click.echo(f"sweep: {described['sweep']}\npath: {described['path']}\n")
    settings = [{"key": key, "value": value} for key, value in described["settings"].items()]
    print_rows(settings, ["key", "value"])
    done = sorted(
        (t for t in trials if isinstance(t["value"], int | float)), key=lambda t: -t["value"]
    )
    click.echo(f"\n{len(trials)} trials; the {min(_SHOWN, len(done))} with the highest values:")
    rows = [{"trial": t["trial"], "value": t["value"], **t["params"]} for t in done[:_SHOWN]]
    print_rows(rows, list(dict.fromkeys(["trial", "value", *(key for r in rows for key in r)])))


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
