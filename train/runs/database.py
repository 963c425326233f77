"""The registry's SQLite file: its tables, opening it, setting a damaged one aside.

WAL lets readers go on while one process writes; a second writer waits up to `BUSY_SECONDS`. WAL
needs shared memory, so processes of one machine may share a registry, not machines that share a
network drive.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from train.errors import TrainError
from vqa_cache.remedy import shown

VERSION = 1
BUSY_SECONDS = 30.0
_CACHE_KIB = 64 * 1024
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

# A value has no declared type: numbers stay numbers and texts stay texts. The index holds each
# key's values close together in the order of runs: a filter or a sort reads few pages, and a new
# run appends to each key instead of writing all over the file.
SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL UNIQUE, experiment TEXT, status TEXT, reason TEXT,
    config TEXT, data TEXT, code TEXT, began REAL, ended REAL, signature TEXT,
    log_inode INTEGER, log_size INTEGER, log_tail BLOB);
CREATE INDEX runs_by_status ON runs (status, run);
CREATE TABLE run_values (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE, key TEXT NOT NULL, value,
    PRIMARY KEY (run, key)) WITHOUT ROWID;
CREATE INDEX run_values_by_key ON run_values (key, run, value);
CREATE TABLE metrics (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE, part TEXT NOT NULL,
    name TEXT NOT NULL, step INTEGER NOT NULL, epoch REAL, value,
    PRIMARY KEY (run, part, name, step)) WITHOUT ROWID;
CREATE TABLE snapshots (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE, name TEXT NOT NULL, step INTEGER,
    epoch REAL, validated INTEGER NOT NULL, PRIMARY KEY (run, name)) WITHOUT ROWID;
CREATE TABLE validations (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE, snapshot TEXT NOT NULL, step INTEGER,
    epoch REAL, part TEXT NOT NULL, name TEXT NOT NULL, value);
CREATE INDEX validations_by_run ON validations (run, snapshot);
CREATE TABLE sweeps (
    id INTEGER PRIMARY KEY, sweep TEXT NOT NULL UNIQUE, settings TEXT, began REAL,
    signature TEXT);
CREATE TABLE trials (
    sweep INTEGER NOT NULL REFERENCES sweeps ON DELETE CASCADE, trial INTEGER NOT NULL,
    status TEXT, value, params TEXT, more TEXT, PRIMARY KEY (sweep, trial)) WITHOUT ROWID;
"""


def connect(path: Path) -> sqlite3.Connection:
    """Open a registry's file, made if there is none.

    Raises:
        sqlite3.Error, OSError: it cannot be opened or written.
        TrainError: another version wrote it.
    """
    db = _open(str(path))
    try:
        if _version(db) == 0:
            with locked(path):  # two processes that make it at the same time
                if _version(db) == 0:
                    db.execute("PRAGMA journal_mode = WAL")
                    db.executescript(f"BEGIN;{SCHEMA}PRAGMA user_version = {VERSION};COMMIT;")
        found = _version(db)
        if found != VERSION:
            raise TrainError(
                f"{path}: found version {found}, expected {VERSION}; use the version of the "
                "project that wrote it, or move it away and run: "
                f"{shown_command('rebuild', path.parent)}"
            )
        with transaction(db):  # says now whether it can be written at all
            pass
    except BaseException:
        db.close()
        raise
    return db


def shown_command(name: str, runs: Path) -> str:
    """A command of `train.runs` as one types it for this folder of runs."""
    folder = [] if shown(runs) == "runs" else ["--runs", shown(runs)]
    return shlex.join(["python", "-m", "train.runs", name, *folder])


def in_memory() -> sqlite3.Connection:
    """A registry that is gone with this process."""
    db = _open(":memory:")
    db.executescript(SCHEMA)
    return db


def _open(where: str) -> sqlite3.Connection:
    db = sqlite3.connect(where, timeout=BUSY_SECONDS, isolation_level=None)
    db.execute("PRAGMA synchronous = NORMAL")  # a power cut may undo the index's last changes
    db.execute("PRAGMA foreign_keys = ON")
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    db.row_factory = sqlite3.Row
    return db


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Everything in the block, or nothing of it; no other process writes meanwhile."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time makes the file or sets it aside."""
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_damage(error: BaseException) -> bool:
    """Whether an error means that the file's content is wrong."""
    return (
        isinstance(error, sqlite3.DatabaseError)
        and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
    )


def inode_of(path: Path) -> int | None:
    """Which file has this name now."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def set_aside(path: Path, inode: int | None) -> Path | None:
    """Rename a damaged file, unless another process has done so already (another inode)."""
    with locked(path):
        if inode is None or inode_of(path) != inode:
            return None
        number = 1
        while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
            number += 1
        for suffix in ("-wal", "-shm", ""):
            if os.path.exists(f"{path}{suffix}"):
                os.rename(f"{path}{suffix}", f"{aside}{suffix}")
        return aside
