"""Victims: forks of this process that work and may be killed on the way.

This process has imported the libraries, so that a kill costs no start-up.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks.measuring.processes import how_it_ended
from vqa_cache.system.signals import EXIT_STOPPED, Stopped, StopSignal

Work = Callable[[StopSignal], object]


def fork(work: Callable[[], int]) -> int:
    """Fork a process that works and exits with what that returns, or with 1 after saying what
    failed; its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def start(work: Work, log: Path) -> int:
    """Fork a victim that works, with one thread, and says into `log`; its process id."""

    def with_log() -> int:
        import torch

        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        torch.set_num_threads(1)
        try:
            work(StopSignal())
        except Stopped:
            return EXIT_STOPPED
        return 0

    return fork(with_log)


def ended(victim: int) -> bool:
    """Whether a victim ended by itself."""
    try:
        return os.waitpid(victim, os.WNOHANG)[0] != 0
    except ChildProcessError:  # known before
        return True


def finish(work: Work, log: Path) -> None:
    """Work to the end; a victim that fails ends the benchmark with what it said."""
    code = os.waitstatus_to_exitcode(os.waitpid(start(work, log), 0)[1])
    if code:
        said = log.read_text()[-2000:]
        raise click.ClickException(f"{log.parent.name}: a victim {how_it_ended(code)}: {said}")
