"""Work in a fresh process of Python, whose failures are never silent."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click


def run_python(*arguments: str) -> str:
    """Run `python ARGUMENTS` to its end; its stdout. What it says on stderr goes to ours.

    Raises:
        click.ClickException: it failed, and has said why.
    """
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        named = ["-c"] if arguments[0] == "-c" else arguments  # code is no name
        raise click.ClickException(f"python {' '.join(named)} {how_it_ended(done.returncode)}")
    return done.stdout


@contextmanager
def started(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """`python ARGUMENTS`, which runs beside us and is killed at the end of the block at the latest.

    Args:
        options: of `subprocess.Popen`.
    """
    with subprocess.Popen([sys.executable, *arguments], text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def how_it_ended(exit_code: int) -> str:
    """For an error's text; a negative code is the signal that killed a process."""
    if exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"
