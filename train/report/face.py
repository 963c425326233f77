"""A run as it shows itself in a notebook: its figures and its curves."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from train.loop.layout import METRICS
from train.report.charts import curves
from train.report.runs import splits_of
from train.report.table import Table
from train.runs.curves import panels_of, read_curves


def run_html(path: Path, result: dict[str, Any]) -> str:
    """The figures of a finished run as a table, its curves as a picture."""
    by_run = {path.name: read_curves(path / METRICS)}
    picture = curves(f"face-{path.name}", by_run, panels_of(by_run.values()), {})
    return (
        f"<p><b>{escape(path.name)}</b>, {escape(result['experiment'])} on "
        f"{escape(result['dataset'])}</p>{table_html(splits_of(result))}"
        f'<div style="max-width: 60rem">{picture}</div>'
    )


def table_html(table: Table) -> str:
    """A plain table, without what the page's script adds."""
    head = "".join(f"<th>{escape(column.name)}</th>" for column in table.columns)
    return f"<table><tr>{head}</tr>{''.join(_row(table, row) for row in table.rows)}</table>"


def _row(table: Table, row: Sequence[Any]) -> str:
    cells = (
        f"<td>{escape(column.shown(cell))}</td>"
        for column, cell in zip(table.columns, row, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"
