"""What a terminal of any width shows whole: tables, and the bar of a progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

_BAR = 10  # characters
_ANY_WIDTH = 10_000


def print_table(
    rows: Sequence[Mapping[str, str]],
    columns: Sequence[str],
    numbers: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """A line a row where the terminal is wide enough for all of it; otherwise the first column on
    a line of its own, so that a name is never cut, and the others below.

    Args:
        numbers: columns to align at their right.
    """
    console = console or Console()
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(Text(name), justify="right" if name in numbers else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(row[name]) for name in columns))
    unbounded = console.options.update_width(_ANY_WIDTH)
    if console.measure(table, options=unbounded).maximum <= console.width:
        console.print(table)
        return
    for row in rows:
        rest = ", ".join(f"{name} {row[name]}" for name in columns[1:])
        console.print(Text(row[columns[0]]), soft_wrap=True)
        console.print(Text(f"  {rest}"), soft_wrap=True)


def giving_way(text: str, *, ratio: int) -> TextColumn:
    """A text that is shortened at its end where the terminal is narrow, never wrapped.

    Args:
        ratio: its share of what columns of fixed width leave.
    """
    column = Column(ratio=ratio, no_wrap=True, overflow="ellipsis")
    return TextColumn(text, table_column=column)


def progress_bar(console: Console, *figures: ProgressColumn, transient: bool = False) -> Progress:
    """A line of a name, a bar, figures and the time left; the name gives way first."""
    return Progress(
        giving_way("{task.description}", ratio=1),
        BarColumn(bar_width=_BAR),
        *figures,
        TimeRemainingColumn(compact=True),
        console=console,
        transient=transient,
        expand=True,
    )
