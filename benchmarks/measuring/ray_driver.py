"""A run with `--engine ray` in a process of its own, and the processes that Ray gives work to."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from benchmarks.measuring.warm import ROOT

SECONDS = 240.0  # that anything may take
Found = TypeVar("Found")


def why_not() -> str | None:
    """Why nothing can be run on Ray here; None where it can."""
    if importlib.util.find_spec("ray") is None:
        return "ray is not installed: pip install 'vqa-cache[ray]'"
    return None


class Driver:
    """`python -m MODULE` in a process of its own."""

    def __init__(self, *arguments: object, module: str = "precompute", **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"} | environment,
        )

    def wait(self) -> tuple[int, str]:
        """Exit code, and what it said on stderr."""
        _, told = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, told

    def at_work(self, task: str) -> list[int]:
        """Processes below this one that Ray has given a task."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            pid = int(folder.name)
            try:
                title = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(f"ray::{task}".encode()) and self.process.pid in _ancestors(pid):
                found.append(pid)
        return found

    def until(self, condition: Callable[[], Found]) -> Found:
        """What the condition gives as soon as it is true. AssertionError where the process ends
        before, or it takes too long."""
        deadline = time.monotonic() + SECONDS
        while not (found := condition()):
            assert self.process.poll() is None, self.wait()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return found


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        yield pid
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return
        pid = int(stat.rpartition(")")[2].split()[1])
