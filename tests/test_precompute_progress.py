"""Telling what stage 1 does: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from precompute.progress import ConsoleReporter


def reporter(*, terminal: bool) -> tuple[ConsoleReporter, io.StringIO]:
    made, shown = ConsoleReporter(), io.StringIO()
    made.console = Console(file=shown, force_terminal=terminal, width=100, soft_wrap=True)
    return made, shown


def test_a_bar_starts_at_what_is_there() -> None:
    made, shown = reporter(terminal=True)
    made.begin("image/x", 10, 4)
    assert made._progress is not None
    [task] = made._progress.tasks
    assert (task.completed, task.total) == (4, 10)
    made.advance(3)
    assert task.completed == 7
    assert "items/s" in task.fields["rate"]
    made.end()
    assert "7/10" in shown.getvalue()
    made.begin("image/y", 2, 0)  # and the next table has its own
    made.end()


def test_plain_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    made, shown = reporter(terminal=False)
    made.begin("image/x", 2000, 400)
    made.advance(100)
    assert shown.getvalue() == "image/x: 400 of 2,000 there, encoding the rest\n"
    later = time.monotonic() + 100
    monkeypatch.setattr(time, "monotonic", lambda: later)
    made.advance(100)
    made.advance(100)
    made.end()
    [_, line] = shown.getvalue().splitlines()
    assert line == "image/x: 600 of 2,000, 2 items/s"  # the resumed rows were not done now


def test_a_name_in_brackets_is_no_markup() -> None:
    made, shown = reporter(terminal=False)
    made.say("text/a[b]/c [red]d[/red]")
    assert shown.getvalue() == "text/a[b]/c [red]d[/red]\n"


def test_quiet() -> None:
    made = ConsoleReporter(quiet=True)
    made.begin("image/x", 2, 0)
    made.advance(1)
    made.end()
    made.say("nothing")
    assert made.console.quiet
