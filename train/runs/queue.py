"""Trainings that wait their turn: jobs with leases, as files in `<runs>/queue/`.

    <job>.json                                  what is to be trained, never changed
    <job>.waiting.<attempts>                    an empty file whose name says how the job stands:
    <job>.running.<attempts>.<until>.<worker>   it is only ever renamed, which one process can
    <job>.done.<attempts>, <job>.failed.<attempts>
    <job>.<attempts>.json                       how an attempt ended
    <job>.log                                   what the job printed

A worker takes a job until a time, in milliseconds since 1970, and keeps renewing that lease. When
it dies, the lease runs out and another worker takes the job. No job is taken twice or lost.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.errors import TrainError
from train.loop.layout import QUEUE
from train.runs.database import shown_command
from vqa_cache.system.durable import (
    create_file,
    make_folder,
    naming,
    remove,
    sync_folder,
    write_file,
)

LEASE_SECONDS = 60.0
_STATE = re.compile(
    r"(?P<job>\d+)\.(?P<status>waiting|running|done|failed)\.(?P<attempts>\d+)"
    r"(\.(?P<until>\d+)\.(?P<worker>.+))?"
)
_LOOKS = 5  # at a folder: a file that is renamed meanwhile may be seen under neither name


@dataclass(frozen=True)
class Job:
    """One `python -m train EXPERIMENT OVERRIDES…`, to be run in `folder`."""

    id: int
    experiment: str
    overrides: tuple[str, ...]
    cache: Path
    folder: Path
    attempts: int

    @property
    def command(self) -> str:
        """As a person would type it."""
        return " ".join(["train", self.experiment, *self.overrides])


@dataclass(frozen=True)
class _State:
    """What the name of a job's file says."""

    name: str
    job: int
    status: str
    attempts: int
    until: float = 0.0
    worker: str | None = None

    @property
    def abandoned(self) -> bool:
        return self.status == "running" and self.until < time.time()


class Queue:
    """The jobs of a folder of runs. Raises OSError, naming the file, where it cannot be used."""

    def __init__(self, runs: Path, lease_seconds: float = LEASE_SECONDS) -> None:
        self.runs = runs
        self.folder = runs / QUEUE
        self.lease_seconds = lease_seconds

    def add(self, experiment: str, overrides: Sequence[str], *, cache: Path, folder: Path) -> int:
        """Append a job; its number."""
        self.runs.mkdir(parents=True, exist_ok=True)
        make_folder(self.folder, self.runs)
        what = {"experiment": experiment, "overrides": list(overrides), "cache": str(cache)}
        content = (json.dumps(what | {"folder": str(folder)}, indent=1) + "\n").encode()
        number = max(self._numbers(), default=0) + 1
        while not create_file(self._record(number), content):
            number += 1  # another process was faster
        write_file(self.folder / f"{number}.waiting.0", b"")
        return number

    def remove(self, number: int) -> None:
        """Take a job that is not running out of the queue. Raises TrainError otherwise."""
        state = self._states().get(number)
        free = state is not None and (state.status != "running" or state.abandoned)
        if state is None or not free or not self._rename(state.name, f"{number}.removed"):
            raise TrainError(f"job {number}: not in the queue, or running")
        for path in (*self.folder.glob(f"{number}.*.json"), self._record(number)):
            remove(path)
        remove(self.folder / f"{number}.removed")

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs, oldest first; a running one whose lease ran out is `abandoned`."""
        found = []
        for state in self._states().values():
            what = _read(self._record(state.job))
            ended = _read(self._outcome(state)) if state.status in ("done", "failed") else {}
            found.append({
                "id": state.job,
                "status": "abandoned" if state.abandoned else state.status,
                "experiment": what.get("experiment"),
                "overrides": what.get("overrides", []),
                "attempts": state.attempts,
                "worker": ended.get("worker", state.worker),
                "run": ended.get("run"),
                "last_line": ended.get("last_line"),
            })  # fmt: skip
        return found

    def take(self, worker: str) -> Job | None:
        """The oldest job that waits or was abandoned, leased to this worker."""
        for state in self._states().values():
            if state.status == "waiting" or state.abandoned:
                job = self._job(state.job, state.attempts + 1)
                if self._rename(state.name, self._running(job, worker)):
                    return job
        return None

    def renew(self, job: Job, worker: str) -> bool:
        """Prolong a lease; False where another worker has the job by now."""
        return self._change(job, worker, self._running(job, worker))

    def hand_back(self, job: Job, worker: str) -> bool:
        """Give a job up, to be taken again."""
        return self._change(job, worker, f"{job.id}.waiting.{job.attempts}")

    def finish(self, job: Job, worker: str, *, ok: bool, run: str | None, last_line: str) -> bool:
        """Record how a job ended."""
        ended = {"worker": worker, "run": run, "last_line": last_line}
        state = self._held(job, worker)
        if state is None:
            return False
        write_file(self._outcome(state), (json.dumps(ended, indent=1) + "\n").encode())
        status = "done" if ok else "failed"
        return self._change(job, worker, f"{job.id}.{status}.{job.attempts}")

    def _change(self, job: Job, holder: str, name: str) -> bool:
        state = self._held(job, holder)
        return state is not None and self._rename(state.name, name)

    def _held(self, job: Job, holder: str) -> _State | None:
        """The job's state while a worker has it in this attempt."""
        state = self._states().get(job.id)
        mine = state is not None and (state.worker, state.attempts) == (holder, job.attempts)
        return state if mine else None

    def _running(self, job: Job, worker: str) -> str:
        until = int((time.time() + self.lease_seconds) * 1000)
        return f"{job.id}.running.{job.attempts}.{until}.{worker}"

    def _rename(self, old: str, new: str) -> bool:
        """Give a state another name, unless another process has done so."""
        try:
            with naming(self.folder / new):
                os.rename(self.folder / old, self.folder / new)
        except FileNotFoundError:
            return False
        sync_folder(self.folder)
        return True

    def _states(self) -> dict[int, _State]:
        """The states by number; looked at again while a job that was added has none."""
        found: dict[int, _State] = {}
        for _ in range(_LOOKS):
            names = self._names()
            found = {state.job: state for state in map(_parse, names) if state is not None}
            if all(number in found for number in map(_recorded, names) if number is not None):
                break
        return dict(sorted(found.items()))

    def _numbers(self) -> Iterator[int]:
        """Those that were given, of jobs that left nothing but a log too."""
        return (int(name.partition(".")[0]) for name in self._names() if name[:1].isdigit())

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.folder)
        except FileNotFoundError:  # nothing was ever queued
            return []

    def _record(self, number: int) -> Path:
        return self.folder / f"{number}.json"

    def _outcome(self, state: _State) -> Path:
        return self.folder / f"{state.job}.{state.attempts}.json"

    def _job(self, number: int, attempts: int) -> Job:
        what = _read(self._record(number))
        try:
            cache, folder = Path(what["cache"]), Path(what["folder"])
            named = str(what["experiment"]), tuple(map(str, what["overrides"]))
        except (KeyError, TypeError):
            raise TrainError(
                f"{self._record(number)}: is damaged; take it out and queue it again: "
                f"{shown_command('queue', self.runs)} --remove {number}"
            ) from None
        return Job(number, *named, cache, folder, attempts)


def worker_name() -> str:
    """A name that no other worker has."""
    return f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"


def _parse(name: str) -> _State | None:
    found = _STATE.fullmatch(name)
    if found is None:
        return None
    number, attempts, until = (int(found[key] or 0) for key in ("job", "attempts", "until"))
    return _State(name, number, found["status"], attempts, until / 1000, found["worker"])


def _recorded(name: str) -> int | None:
    number, _, rest = name.partition(".")
    return int(number) if rest == "json" and number.isdigit() else None


def _read(path: Path) -> dict[str, Any]:
    """A file's object; empty where it is gone or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
