"""Stopping on SIGTERM and Ctrl-C after what is under way has been saved."""

from __future__ import annotations

import os
import signal

EXIT_STOPPED = 143


class Stopped(Exception):
    """A signal came, and what was under way is kept or given up. Nothing failed: no UserError."""


class StopSignal:
    """Called, it says whether a signal came; a second signal exits at once.

    Both stages ask between batches. Whatever is written meanwhile has a temporary name, so that an
    exit at once leaves what was committed intact.
    """

    def __init__(self) -> None:
        self._received = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, _number: int, _frame: object) -> None:
        if self._received:
            os._exit(EXIT_STOPPED)
        self._received = True

    def __call__(self) -> bool:
        return self._received
