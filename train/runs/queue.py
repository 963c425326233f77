"""Trainings that wait their turn, in the registry: jobs with leases.

A worker takes a job for `LEASE_SECONDS` and keeps renewing that lease. When it dies, the lease runs
out and another worker takes the job. Every change is one synced transaction, so a job is never
taken twice and never lost.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.errors import TrainError
from train.runs.database import transaction
from train.runs.registry import Registry

LEASE_SECONDS = 60.0


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


class Queue:
    """The jobs of a registry. Raises TrainError where the registry cannot be written."""

    def __init__(self, registry: Registry, lease_seconds: float = LEASE_SECONDS) -> None:
        if registry.in_memory:
            raise TrainError(f"{registry.path}: the queue lives in this file; it must be writable")
        self.runs = registry.runs
        self.lease_seconds = lease_seconds
        self._db = registry.db
        self._db.execute("PRAGMA synchronous = FULL")  # jobs are nowhere else

    def add(self, experiment: str, overrides: Sequence[str], *, cache: Path, folder: Path) -> int:
        """Append a job; its number."""
        with transaction(self._db):
            row = self._db.execute(
                "INSERT INTO queue (experiment, overrides, cache, folder, status, added, attempts)"
                " VALUES (?, ?, ?, ?, 'waiting', ?, 0) RETURNING id",
                [experiment, json.dumps(list(overrides)), str(cache), str(folder), time.time()],
            ).fetchone()
        return int(row["id"])

    def remove(self, number: int) -> None:
        """Take a job that is not running out of the queue. Raises TrainError otherwise."""
        with transaction(self._db):
            done = self._db.execute(
                "DELETE FROM queue WHERE id = ? AND (status != 'running' OR lease_until < ?)",
                [number, time.time()],
            )
            if not done.rowcount:
                raise TrainError(f"job {number}: not in the queue, or running")

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs, oldest first; a running one whose lease ran out is `abandoned`."""
        query = (
            "SELECT id, CASE WHEN status = 'running' AND lease_until < ? THEN 'abandoned'"
            " ELSE status END AS status, experiment, overrides, attempts, worker, run, last_line"
            " FROM queue ORDER BY id"
        )
        rows = [dict(row) for row in self._db.execute(query, [time.time()])]
        return [row | {"overrides": json.loads(row["overrides"])} for row in rows]

    def take(self, worker: str) -> Job | None:
        """The oldest job that waits or was abandoned, leased to this worker."""
        now = time.time()
        with transaction(self._db):
            row = self._db.execute(
                "UPDATE queue SET status = 'running', worker = ?, lease_until = ?,"
                " attempts = attempts + 1 WHERE id = (SELECT id FROM queue WHERE status = 'waiting'"
                " OR (status = 'running' AND lease_until < ?) ORDER BY id LIMIT 1) RETURNING *",
                [worker, now + self.lease_seconds, now],
            ).fetchone()
        return None if row is None else _job(row)

    def renew(self, job: Job, worker: str) -> bool:
        """Prolong a lease; False where another worker has the job by now."""
        return self._change(job, worker, lease_until=time.time() + self.lease_seconds)

    def hand_back(self, job: Job, worker: str) -> bool:
        """Give a job up, to be taken again."""
        return self._change(job, worker, status="waiting", worker=None, lease_until=None)

    def finish(self, job: Job, worker: str, *, ok: bool, run: str | None, last_line: str) -> bool:
        """Record how a job ended."""
        status = "done" if ok else "failed"
        ended = {"status": status, "run": run, "last_line": last_line, "lease_until": None}
        return self._change(job, worker, **ended)

    def _change(self, job: Job, holder: str, **columns: Any) -> bool:
        changes = ", ".join(f"{name} = ?" for name in columns)
        with transaction(self._db):
            done = self._db.execute(
                f"UPDATE queue SET {changes} WHERE id = ? AND status = 'running' AND worker = ?",
                [*columns.values(), job.id, holder],
            )
        return done.rowcount == 1


def worker_name() -> str:
    """A name that no other worker has."""
    return f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"


def _job(row: sqlite3.Row) -> Job:
    return Job(
        id=row["id"],
        experiment=row["experiment"],
        overrides=tuple(json.loads(row["overrides"])),
        cache=Path(row["cache"]),
        folder=Path(row["folder"]),
        attempts=row["attempts"],
    )
