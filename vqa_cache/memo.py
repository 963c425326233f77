"""What stage 1 remembers to be fast. Never the truth: it may be deleted at any time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from vqa_cache.keys import KEY_BYTES, json_digest

_SCHEMA = """
CREATE TABLE IF NOT EXISTS identities (evidence TEXT PRIMARY KEY, table_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, key BLOB NOT NULL);
"""
_COLUMNS_USED = (
    "SELECT evidence, table_id FROM identities LIMIT 0",
    "SELECT path, size, mtime_ns, inode, key FROM images LIMIT 0",
)
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
# a full disk, a lock, damage; and what SQLite cannot hold: a path that is no text, a large inode
_TOLERATED = (sqlite3.Error, OverflowError, ValueError)
Stat = tuple[int, int, int]


class Memo:
    """Content keys of files that have not changed, identities of encoders that have not.

    Whatever befalls its file costs time and nothing else: no method raises for it.
    """

    def __init__(self, path: Path) -> None:
        """A damaged memo is replaced by an empty one; one that cannot be opened (locked, on a full
        disk) is left alone, and this one forgets at the end."""
        self._connection = _opened(path)

    def close(self) -> None:
        """Leave no journal beside the memo."""
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA journal_mode=DELETE")
        with suppress(sqlite3.Error):
            self._connection.close()

    def table_id(self, evidence: object) -> str | None:
        """The id of the table that the same evidence (spec, versions, file stats) led to."""
        with suppress(*_TOLERATED):
            row = self._connection.execute(
                "SELECT table_id FROM identities WHERE evidence = ?", (json_digest(evidence),)
            ).fetchone()
            return row[0] if row else None
        return None

    def remember_table(self, evidence: object, table_id: str) -> None:
        """Keep a table's id for `table_id`."""
        with suppress(*_TOLERATED):
            self._connection.execute(
                "INSERT OR REPLACE INTO identities VALUES (?, ?)", (json_digest(evidence), table_id)
            )

    def image_keys(self) -> dict[str, tuple[Stat, bytes]]:
        """Absolute path -> ((size, mtime_ns, inode), content key)."""
        with suppress(*_TOLERATED):
            rows = self._connection.execute(
                "SELECT path, size, mtime_ns, inode, key FROM images "
                "WHERE typeof(key) = 'blob' AND length(key) = ?",
                (KEY_BYTES,),
            )
            return {path: ((size, mtime, inode), key) for path, size, mtime, inode, key in rows}
        return {}

    def remember_images(self, rows: Iterable[tuple[str, Stat, bytes]]) -> None:
        """Keep content keys for `image_keys`."""
        kept = [(path, *stat, key) for path, stat, key in rows]
        with suppress(*_TOLERATED), self._connection:
            self._connection.execute("BEGIN")
            self._connection.executemany(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?)", kept
            )


class _DamagedMemo(sqlite3.DatabaseError):
    """Its pages contradict each other."""


def _opened(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0)
        short = code == sqlite3.SQLITE_IOERR_SHORT_READ
        if short or code & 0xFF in _DAMAGE or isinstance(error, _DamagedMemo):
            with suppress(OSError, sqlite3.Error):
                for suffix in ("-wal", "-shm", "-journal", ""):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                return _connect(path)
    return _connect(":memory:")


def _connect(path: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        connection.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; {_SCHEMA}")
        for query in _COLUMNS_USED:
            connection.execute(query)
        [(told,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
        if told != "ok":
            raise _DamagedMemo(told)
    except BaseException:
        connection.close()
        raise
    return connection


def file_stat(path: str | Path) -> Stat:
    """(size, mtime_ns, inode). Raises OSError."""
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
