"""What a person sees at the end of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from train.loop.progress import say

SHOWN = 10  # trials


def print_sweep(result: Mapping[str, Any], console: Console) -> None:
    """The best trials, the importance of each key, and the winners."""
    counts = ", ".join(f"{count:,} {status}" for status, count in result["counts"].items() if count)
    rows = sorted(
        result["trials"],
        key=lambda row: (row["status"] != "finished", -(row["value"] or 0.0), row["trial"]),
    )
    several = len({row["experiment"] for row in rows}) > 1
    keys = list(rows[0]["params"])
    table = Table(title=f"best trials of {counts}", title_justify="left", box=SIMPLE_HEAD)
    for column in ("trial", *(["experiment"] if several else []), *keys):
        table.add_column(column)
    for column in ("accuracy", "epoch", "status"):
        table.add_column(column, justify="right")
    for row in rows[:SHOWN]:
        table.add_row(
            str(row["trial"]),
            *([Path(row["experiment"]).stem] if several else []),
            *(_shown(row["params"][key]) for key in keys),
            "-" if row["value"] is None else f"{row['value']:.4f}",
            f"{row['epoch']}",
            row["status"],
        )
    console.print(table)
    for name, shares in result["importance"].items():
        if name != "reasons":
            why = result["importance"]["reasons"].get(name)
            text = why or ", ".join(f"{key} {share:.2f}" for key, share in shares.items())
            say(console, f"importance of keys, {Path(name).stem}: {text}")
    if not result["counts"]["finished"]:
        say(console, "no winner: no trial trained to the end; lower the range of optimizer.lr")
    for winner in result["winners"]:
        say(console, winner_line(winner))


def winner_line(winner: Mapping[str, Any]) -> str:
    """One winner with its mean and deviation."""
    chosen = " ".join(f"{key}={_shown(value)}" for key, value in winner["params"].items())
    name = f"{Path(winner['experiment']).stem}, trial {winner['trial']}: {chosen}"
    if winner["mean"] is None:
        return f"no winner: {name} did not train alone ({winner['reason']})"
    return (
        f"winner: {name}: selection accuracy {winner['mean']:.4f} ± {winner['deviation']:.4f} "
        f"(mean ± sd of {len(winner['values'])} seeds alone; in the sweep "
        f"{winner['sweep_value']:.4f})"
    )


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
