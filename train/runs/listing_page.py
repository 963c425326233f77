"""The list of runs as one page that needs nothing else: a click sorts, words filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from train.runs.tabular import text_of

_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>runs</title>
<meta name="viewport" content="width=device-width">
<style>
:root { color-scheme: light dark; font: 14px system-ui, sans-serif; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #8885; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
th { cursor: pointer; position: sticky; top: 0; background: Canvas; }
</style>
<input type="search" placeholder="filter rows" aria-label="filter rows">
"""
_TAIL = """<script>
const cell = (row, n) => row.cells[n].dataset.value;
const order = (a, b, sign) => a === "" || b === "" ? (a === "") - (b === "")
  : sign * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
document.querySelectorAll("th").forEach((head) => head.onclick = () => {
  const body = head.closest("table").tBodies[0], n = head.cellIndex;
  const down = head.dataset.down = head.dataset.down === "1" ? "" : "1";
  [...body.rows].sort((a, b) => order(cell(a, n), cell(b, n), down ? -1 : 1))
    .forEach((row) => body.append(row));
});
document.querySelector("input").oninput = (event) => {
  const words = event.target.value.toLowerCase().split(" ");
  for (const row of document.querySelectorAll("tbody tr"))
    row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
};
</script>
</html>
"""


def page(tables: Sequence[tuple[str, Sequence[Mapping[str, Any]], Sequence[str]]]) -> str:
    """HTML of some tables: a title, rows, and the columns that are shown."""
    return _HEAD + "".join(_table(*one) for one in tables if one[1]) + _TAIL


def _table(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "\n".join(
        f"<tr>{''.join(_cell(row.get(name)) for name in columns)}</tr>" for row in rows
    )
    return (
        f"<h1>{escape(title)}</h1>\n<table><thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table>\n"
    )


def _cell(value: Any) -> str:
    kind = ' class="number"' if isinstance(value, int | float) else ""
    exact = "" if value is None else escape(str(value))
    return f'<td{kind} data-value="{exact}">{escape(text_of(value))}</td>'
