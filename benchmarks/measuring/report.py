"""What a benchmark says: on stderr what it measures right now, on stdout its figures.

A benchmark may last an hour. Where it fails or is stopped on the way, the figures until then are
printed all the same.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from data.example import DatasetError
from precompute.errors import PrecomputeError
from train.errors import TrainError
from vqa_cache.errors import CacheError
from vqa_cache.system.signals import EXIT_STOPPED

Figures = dict[str, Any]
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")

_SAY_ALL = (click.ClickException, CacheError, DatasetError, PrecomputeError, TrainError)
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Report:
    """The figures of a benchmark that runs.

    Attributes:
        figures: what has been measured so far; a benchmark adds to it.
        doing: what is being measured.
    """

    def __init__(self) -> None:
        self.figures: Figures = {}
        self.doing = "setting up"
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began

    def begin(self, what: str) -> None:
        """Say what is measured from now on, after the seconds since the start."""
        self.doing = what
        click.echo(f"{self.seconds:6.0f} s  {what}", err=True)

    def print(self, *, as_json: bool) -> None:
        """The figures on stdout: one JSON object, or a line each."""
        lines = (f"{key}: {value}" for key, value in self.figures.items())
        click.echo(json.dumps(self.figures) if as_json else "\n".join(lines))


@contextmanager
def reported(*, as_json: bool) -> Iterator[Report]:
    """A report that is printed at the end of the block.

    Where the block fails (exit code 1) or a signal stops it (143), what was measured until then is
    printed with a further figure `incomplete`, which says what failed; so does the last line on
    stderr. An error that does not speak for itself shows first where it comes from.
    """
    report = Report()
    try:
        with _stopped_by_signals():
            yield report
    except Exception as error:
        told = error.message if isinstance(error, click.ClickException) else str(error)
        if not isinstance(error, _SAY_ALL):
            traceback.print_exc()
            told = f"{type(error).__name__}: {told}"
        _end_early(report, f"{report.doing}: {told}", as_json=as_json, exit_code=1)
    except _Stopped as stopped:
        line = f"{report.doing}: stopped by {stopped}"
        _end_early(report, line, as_json=as_json, exit_code=EXIT_STOPPED)
    report.print(as_json=as_json)


def _end_early(report: Report, line: str, *, as_json: bool, exit_code: int) -> NoReturn:
    report.figures["incomplete"] = line
    report.print(as_json=as_json)
    click.echo(f"error: {line}", err=True)
    sys.exit(exit_code)


class _Stopped(BaseException):
    """A signal came; no Exception, so that nothing on the way takes it for a failure."""


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Raise _Stopped at a signal that would end the process without a word; one that is ignored
    (by nohup, say) stays so."""

    def stop(number: int, _frame: object) -> None:
        raise _Stopped(signal.Signals(number).name)

    before = {number: signal.getsignal(number) for number in _STOPPING}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
