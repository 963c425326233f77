"""What stage 1 remembers to be fast. Never the truth: it may be deleted at any time."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import xxhash

from vqa_cache.keys import KEY_BYTES, json_digest

_SCHEMA = """
CREATE TABLE IF NOT EXISTS identities (
    evidence TEXT PRIMARY KEY, table_id TEXT NOT NULL, checksum TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER,
    key BLOB NOT NULL, checksum TEXT NOT NULL);
"""
_COLUMNS_USED = (
    "SELECT evidence, table_id, checksum FROM identities LIMIT 0",
    "SELECT path, size, mtime_ns, ctime_ns, inode, key, checksum FROM images LIMIT 0",
)
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
# a full disk, a lock, damage; and what SQLite cannot hold: a path that is no text, a large inode
_TOLERATED = (sqlite3.Error, OverflowError, ValueError)
_SAME_TICK_NS = 50_000_000  # two writes so near each other may have one time
Stat = tuple[int, int, int, int]


class Memo:
    """Content keys of files that have not changed, identities of encoders that have not.

    Whatever befalls its file costs time and nothing else: no method raises for it, and a row whose
    checksum is wrong is forgotten.
    """

    def __init__(self, path: Path) -> None:
        """A damaged memo is replaced by an empty one; one that cannot be opened (locked, on a full
        disk), or is a link to what may be somebody else's, is left alone, and this one forgets at
        the end."""
        self._connection = _connect(":memory:") if path.is_symlink() else _opened(path)

    def close(self) -> None:
        """Leave no journal beside the memo."""
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA journal_mode=DELETE")
        with suppress(sqlite3.Error):
            self._connection.close()

    def table_id(self, evidence: object) -> str | None:
        """The id of the table that the same evidence (spec, versions, file stats) led to."""
        with suppress(*_TOLERATED):
            digest = json_digest(evidence)
            row = self._connection.execute(
                "SELECT table_id, checksum FROM identities WHERE evidence = ?", (digest,)
            ).fetchone()
            if row and row[1] == _checksum(digest, row[0]):
                return str(row[0])
        return None

    def remember_table(self, evidence: object, table_id: str) -> None:
        """Keep a table's id for `table_id`."""
        with suppress(*_TOLERATED):
            digest = json_digest(evidence)
            self._connection.execute(
                "INSERT OR REPLACE INTO identities VALUES (?, ?, ?)",
                (digest, table_id, _checksum(digest, table_id)),
            )

    def image_keys(self) -> dict[str, tuple[Stat, bytes]]:
        """Absolute path -> (`file_stat`, content key)."""
        with suppress(*_TOLERATED):
            rows = self._connection.execute(
                "SELECT path, size, mtime_ns, ctime_ns, inode, key, checksum FROM images "
                "WHERE typeof(key) = 'blob' AND length(key) = ?",
                (KEY_BYTES,),
            )
            return {
                path: (tuple(stat), key)
                for path, *stat, key, checksum in rows
                if checksum == _checksum(path, *stat, key)
            }
        return {}

    def remember_images(self, rows: Iterable[tuple[str, Stat, bytes]]) -> None:
        """Keep content keys for `image_keys`."""
        kept = [(path, *stat, key, _checksum(path, *stat, key)) for path, stat, key in rows]
        with suppress(*_TOLERATED), self._connection:
            self._connection.execute("BEGIN")
            self._connection.executemany(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?)", kept
            )


def _checksum(*fields: object) -> str:
    """Of a row, so that no flipped bit in it is believed."""
    return xxhash.xxh3_64_hexdigest(repr(fields).encode(errors="surrogateescape"))


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
    """(size, mtime_ns, ctime_ns, inode); the third cannot be set back. Raises OSError."""
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def is_settled(stat: Stat) -> bool:
    """Whether a file was changed so long ago that the next change has another time."""
    return time.time_ns() - stat[2] > _SAME_TICK_NS
