"""Rows for people: a table on a terminal, aligned plain text where the output goes elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

Curves = Mapping[tuple[str, str], Sequence[tuple[float, float]]]
_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 60  # of a curve


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """A line a row, a column a key."""
    if sys.stdout.isatty():
        from vqa_cache.system.printing import print_table

        shown = [{name: text_of(row.get(name)) for name in columns} for row in rows]
        numeric = [n for n in columns if any(isinstance(r.get(n), int | float) for r in rows)]
        print_table(shown, columns, numeric)
        return
    lines = [list(columns), *([text_of(row.get(name)) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    form = "  ".join(f"{{:<{width}}}" for width in widths)
    click.echo("\n".join(form.format(*line).rstrip() for line in lines))


def print_json(value: Any) -> None:
    """One JSON object on one line."""
    click.echo(json.dumps(value, ensure_ascii=False))


def text_of(value: Any) -> str:
    """A value as a person reads it: four digits of a fraction, `-` for none."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_curves(both: Sequence[Curves]) -> None:
    """Curves of A and B, (part, metric) -> [(epoch, value), …], one above the other and on one
    scale, for what both have."""
    for part, name in (key for key in both[0] if key in both[1]):
        values = [[value for _, value in each[part, name]] for each in both]
        low, high = min(map(min, values)), max(map(max, values))
        click.echo(f"\n{part} {name} by epoch, {text_of(low)} to {text_of(high)}")
        for label, line in zip("AB", values, strict=True):
            click.echo(f"{label}  {sparkline(line, low, high, _WIDTH)}  last {text_of(line[-1])}")


def sparkline(values: Sequence[float], low: float, high: float, width: int) -> str:
    """Values as one line of blocks between `low` and `high`, at most `width` of them."""
    count = min(width, len(values))
    picked = [values[(len(values) - 1) * i // max(count - 1, 1)] for i in range(count)]
    span = (high - low) or 1.0
    return "".join(_BLOCKS[round((value - low) / span * (len(_BLOCKS) - 1))] for value in picked)
