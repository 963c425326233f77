"""A worker: takes jobs from the queue and trains them, one after another.

Each job is a process of its own, so a training that fails, or is killed for its memory, does not
take the batch with it. The process gets SIGTERM when the worker dies, whatever killed it: by the
time its lease has run out it has saved and gone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from train.runs.queue import Job, Queue, worker_name
from vqa_cache.system.signals import EXIT_STOPPED

_LOOK_EVERY = 0.2  # seconds
_ASK_EVERY = 2.0  # seconds between looks at an empty queue
_GRACE = 2.0  # a machine that goes down stops training and worker at nearly the same moment
_TAIL = 8192
_PR_SET_PDEATHSIG = 1


class Stop:
    """Counts SIGTERM and Ctrl-C while it is in use as a context."""

    def __init__(self) -> None:
        self.asked = 0

    def __enter__(self) -> Stop:
        numbers = (signal.SIGTERM, signal.SIGINT)
        self._before = {number: signal.signal(number, self._ask) for number in numbers}
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Worker:
    """Works a queue off.

    Args:
        wait: go on asking for jobs when the queue is empty.
        say: gets a line for each job that begins or ends.
    """

    def __init__(
        self, queue: Queue, stop: Stop, say: Callable[[str], None], *, wait: bool = False
    ) -> None:
        self.queue = queue
        self.stop = stop
        self.say = say
        self.wait = wait
        self.name = worker_name()
        self.failed: list[str] = []

    def work(self) -> None:
        """Until the queue is empty, or a signal comes. `failed` says which jobs failed and why."""
        while not self.stop.asked:
            job = self.queue.take(self.name)
            if job is not None:
                self._do(job)
            elif self.wait:
                self._sleep(_ASK_EVERY)
            else:
                return

    def _do(self, job: Job) -> None:
        self.say(f"job {job.id}: {job.command}")
        log = self.queue.folder / f"{job.id}.log"
        try:
            with log.open("ab") as output:
                child = self._start(job, output)
        except OSError as error:  # its folder is gone
            self._record(job, ok=False, line=f"cannot be started: {error}")
            return
        try:
            kept = self._watch(job, child)
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
        if not kept:
            self.say(f"job {job.id}: another worker has it, this one let go")
            return
        if child.returncode in (EXIT_STOPPED, -signal.SIGTERM) and not self.stop.asked:
            self._sleep(_GRACE)
        if self.stop.asked and child.returncode != 0:
            self.queue.hand_back(job, self.name)
            self.say(f"job {job.id}: stopped, back in the queue")
            return
        line, code = last_line(log), child.returncode
        self._record(job, ok=code == 0, line=line if code == 0 else f"exit code {code}: {line}")

    def _record(self, job: Job, *, ok: bool, line: str) -> None:
        run = Path(line.removeprefix("run: ")).name if line.startswith("run: ") else None
        self.queue.finish(job, self.name, ok=ok, run=run, last_line=line)
        self.say(f"job {job.id}: {'done' if ok else 'failed'}, {line}")
        if not ok:
            self.failed.append(f"job {job.id}: {job.command}: {line}")

    def _start(self, job: Job, output: BinaryIO) -> subprocess.Popen[bytes]:
        where = ["--cache", str(job.cache), "--runs", str(self.queue.runs.resolve())]
        return subprocess.Popen(
            [sys.executable, "-m", "train", job.experiment, *job.overrides, *where],
            cwd=job.folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},  # its log can be followed
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C comes here alone and is passed on once
            preexec_fn=_end_with(os.getpid()),
        )

    def _watch(self, job: Job, child: subprocess.Popen[bytes]) -> bool:
        """Renew the lease until the child ends; False where the lease was lost."""
        told = 0
        renewed = time.monotonic()
        while True:
            try:
                child.wait(timeout=_LOOK_EVERY)
                return True
            except subprocess.TimeoutExpired:
                pass
            if self.stop.asked > told:
                (child.kill if told else child.terminate)()
                told = self.stop.asked
            if time.monotonic() - renewed > self.queue.lease_seconds / 3:
                renewed = time.monotonic()
                if not self.queue.renew(job, self.name):
                    return False

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.stop.asked and time.monotonic() < end:
            time.sleep(_LOOK_EVERY)


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def _end_with(parent: int) -> Callable[[], None] | None:
    """What a child calls so that it gets SIGTERM when its parent dies; None where the system
    cannot do that."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the line above
            os._exit(EXIT_STOPPED)

    return prepare
