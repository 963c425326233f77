"""The registry: `<runs>/registry.sqlite`, an index of the run and sweep folders beside it.

What a user does with it:

    ls, show, export, sql    find runs by any setting or figure, without opening a thousand files
    compare A B              what differs between two runs, and whether the difference is chance
    validate --pending       figures for snapshots that have none, or lack a metric added since
    queue, work              a batch of trainings overnight
    clean                    get the disk back
    rebuild                  make it anew; the folders are the truth, the index can be thrown away

The trainer calls `Registry.open(runs)` and `index_run(folder)`: when it begins, after each
evaluated epoch, at the end. These never raise: a registry that cannot be written costs a training
one line of warning. What they missed (or a folder copied, or deleted by hand) `refresh` finds.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.errors import TrainError
from train.loop.layout import REGISTRY
from train.runs import database
from train.runs.records import (
    LogPosition,
    RunRecord,
    is_run,
    is_sweep,
    read_run,
    read_sweep,
    signature,
)

if TYPE_CHECKING:
    import pandas

Say = Callable[[str], None]
_TOGETHER = 1000  # folders indexed in one transaction, a second or two: others wait for its end
_HIDDEN = ("id", "signature", "log_inode", "log_size", "log_tail")

# what may have changed since it was indexed; a finished run does not
_SIGNATURES = (
    "SELECT run, signature FROM runs WHERE status != 'finished'"
    " UNION ALL SELECT sweep, signature FROM sweeps"
)


def warn(line: str) -> None:
    """A line on stderr."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


def check_folder(runs: Path) -> None:
    """Raise TrainError where there is no folder of runs."""
    if not runs.is_dir():
        raise TrainError(f"{runs}: no such folder; expected a folder of runs (--runs)")


def open_registry(runs: Path, say: Say = warn) -> Registry:
    """The registry of an existing runs folder, refreshed. Raises TrainError where none is."""
    check_folder(runs)
    registry = Registry.open(runs, say)
    registry.refresh()
    return registry


class Registry:
    """An open registry.

    Attributes:
        runs: the folder of all runs.
        db: the connection, for reading.
        in_memory: whether the file could not be used, so that changes are lost with the process.
    """

    def __init__(self, runs: Path, say: Say = warn) -> None:
        self.runs = runs
        self.say = say
        self.in_memory = False
        self._warned = False
        self._inode: int | None = None
        self.db = self._connect()

    @classmethod
    def open(cls, runs: Path, say: Say = warn) -> Registry:
        """Open a registry, made if there is none. Never raises: where the file cannot be used, it
        says so in one line and keeps the index in memory."""
        return cls(runs, say)

    @property
    def path(self) -> Path:
        """The database's file."""
        return self.runs / REGISTRY

    def _connect(self) -> sqlite3.Connection:
        for _ in range(2):
            try:
                self.runs.mkdir(parents=True, exist_ok=True)
                self._inode = database.inode_of(self.path)
                db = database.connect(self.path)
                self._inode = database.inode_of(self.path)
                return db
            except (sqlite3.Error, OSError, TrainError) as error:
                if database.is_damage(error) and self._set_aside(error):
                    continue
                self._cannot_write(error)
                break
        self.in_memory = True
        return database.in_memory()

    def _set_aside(self, error: BaseException) -> bool:
        try:
            aside = database.set_aside(self.path, self._inode)
        except OSError:
            return False
        if aside is not None:
            self.say(
                f"{self.path} is damaged ({error}): set aside as {aside.name} and made again from "
                "the run folders"
            )
        return True

    def _cannot_write(self, error: BaseException) -> None:
        if not self._warned:
            self.say(f"{self.path}: the run registry cannot be used ({error}); runs are not lost")
            self._warned = True

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    # ------------------------------------------------------------ from folders to rows

    def index_run(self, run: Path) -> None:
        """Read a run's folder again and replace its rows, in one transaction. Never raises."""
        self._guarded(lambda: self._index([run]))

    def refresh(self) -> None:
        """Index folders that are new or changed, drop rows of folders that are gone."""
        self._guarded(lambda: self._catch_up(again=False))

    def rebuild(self) -> None:
        """Read every folder again, as if there had been no registry."""
        self._guarded(lambda: self._catch_up(again=True))

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do it; on a damaged file once more, on a new one, filled from the folders."""
        try:
            work()
        except (sqlite3.Error, OSError) as error:
            if self.in_memory or not database.is_damage(error) or not self._set_aside(error):
                self._cannot_write(error)
                self.db.execute("PRAGMA busy_timeout = 1000")  # do not wait so long again
                return
            self.db.close()
            self.db = self._connect()
            self._guarded(work)

    def _catch_up(self, again: bool) -> None:
        there = set(os.listdir(self.runs))
        finished = "SELECT run FROM runs WHERE status = 'finished'"
        settled = set() if again else {row[0] for row in self.db.execute(finished)}
        seen = dict(self.db.execute(_SIGNATURES).fetchall())
        changed, kept = [], set()
        for name in sorted(there - settled):
            folder = self.runs / name
            if _is_indexed(folder):
                kept.add(name)
                if again or seen.get(name) != signature(folder):
                    changed.append(folder)
        for first in range(0, len(changed), _TOGETHER):
            self._index(changed[first : first + _TOGETHER], again=again)
        gone = [(name,) for name in (seen.keys() - kept) | (settled - there)]
        if gone:
            with database.transaction(self.db):
                self.db.executemany("DELETE FROM runs WHERE run = ?", gone)
                self.db.executemany("DELETE FROM sweeps WHERE sweep = ?", gone)

    def _index(self, folders: list[Path], *, again: bool = False) -> None:
        with database.transaction(self.db):
            for folder in folders:
                try:
                    if is_sweep(folder):
                        self._write_sweep(folder)
                    else:
                        self._write_run(folder, again)
                except (TrainError, OSError) as error:  # one folder must not hide the others
                    self.say(f"not indexed: {error}")

    def _write_run(self, folder: Path, again: bool) -> None:
        old = self.db.execute("SELECT * FROM runs WHERE run = ?", [folder.name]).fetchone()
        since = None
        if old is not None and old["log_size"] is not None and not again:
            since = LogPosition(old["log_inode"], old["log_size"], old["log_tail"])
        record = read_run(folder, since)
        position = record.position or LogPosition(0, 0, b"")
        number = self._upsert(
            "runs",
            "run",
            record.columns
            | {"log_inode": position.inode, "log_size": position.size, "log_tail": position.tail},
        )
        self._write_values(number, record)
        if not record.continues:
            self.db.execute("DELETE FROM metrics WHERE run = ?", [number])
        self.db.executemany(
            "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?, ?, ?)",
            ((number, p.part, p.name, p.step or 0, p.epoch, p.value) for p in record.points),
        )
        self._write_snapshots(number, record)

    def _upsert(self, table: str, key: str, columns: dict[str, Any]) -> int:
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        changes = ", ".join(f"{name} = excluded.{name}" for name in columns)
        row = self.db.execute(
            f"INSERT INTO {table} ({names}) VALUES ({marks})"
            f" ON CONFLICT ({key}) DO UPDATE SET {changes} RETURNING id",
            list(columns.values()),
        ).fetchone()
        return int(row[0])

    def _write_values(self, run: int, record: RunRecord) -> None:
        """Only what differs is written: during a training a config does not change."""
        old = dict(
            self.db.execute("SELECT key, value FROM run_values WHERE run = ?", [run]).fetchall()
        )
        self.db.executemany(
            "DELETE FROM run_values WHERE run = ? AND key = ?",
            [(run, key) for key in old if key not in record.values],
        )
        self.db.executemany(
            "INSERT OR REPLACE INTO run_values VALUES (?, ?, ?)",
            [
                (run, key, value)
                for key, value in record.values.items()
                if key not in old or not _same(old[key], value)
            ],
        )

    def _write_snapshots(self, run: int, record: RunRecord) -> None:
        for table in ("snapshots", "validations"):
            self.db.execute(f"DELETE FROM {table} WHERE run = ?", [run])
        validated = {item.snapshot for item in record.validations}
        self.db.executemany(
            "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?)",
            [(run, s.name, s.step, s.epoch, s in validated) for s in record.snapshots],
        )
        self.db.executemany(
            "INSERT INTO validations VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (run, v.snapshot.name, v.snapshot.step, v.snapshot.epoch, v.part, v.name, v.value)
                for v in record.validations
            ],
        )

    def _write_sweep(self, folder: Path) -> None:
        columns, trials = read_sweep(folder)
        number = self._upsert("sweeps", "sweep", columns)
        self.db.execute("DELETE FROM trials WHERE sweep = ?", [number])
        self.db.executemany(
            "INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?, ?)",
            [(number, *trial.values()) for trial in trials],
        )

    # ------------------------------------------------------------ from rows to answers

    def rows(self) -> Iterator[dict[str, Any]]:
        """One dict a run, in the order they began: columns of `runs`, then every value."""
        query = "SELECT * FROM runs ORDER BY began, run"
        for run in self.db.execute(query):
            columns = {name: run[name] for name in run.keys() if name not in _HIDDEN}  # noqa: SIM118
            yield columns | self.values(run["id"])

    def values(self, number: int) -> dict[str, Any]:
        """Config and figures of a run, by its `runs.id`: dotted key -> value."""
        found = self.db.execute(
            "SELECT key, value FROM run_values WHERE run = ? ORDER BY key", [number]
        )
        return dict(found.fetchall())

    def to_pandas(self) -> pandas.DataFrame:
        """One row a run, by its id; a column for every setting and figure that any run has."""
        import pandas

        table = pandas.DataFrame(list(self.rows()))
        for name in ("began", "ended"):
            if name in table:
                table[name] = pandas.to_datetime(table[name], unit="s", utc=True)
        return table.set_index("run") if len(table) else table


def _is_indexed(folder: Path) -> bool:
    if not is_run(folder) and not is_sweep(folder):
        return False
    from vqa_cache.system.durable import (
        is_temporary,  # loads numpy, which `ls` has no other use for
    )

    return not is_temporary(folder)


def _same(old: Any, new: Any) -> bool:
    return type(old) is type(new) and bool(old == new)
