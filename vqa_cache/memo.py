"""What stage 1 remembers to be fast. Never the truth: it may be deleted at any time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from vqa_cache.keys import json_digest

_SCHEMA = """
CREATE TABLE IF NOT EXISTS identities (evidence TEXT PRIMARY KEY, table_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, key BLOB NOT NULL);
"""
Stat = tuple[int, int, int]


class Memo:
    """Content keys of files that have not changed, identities of encoders that have not."""

    def __init__(self, path: Path) -> None:
        """A damaged memo is replaced by an empty one."""
        self._path = path
        try:
            self._connection = self._connect()
        except sqlite3.DatabaseError:
            path.unlink()
            self._connection = self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        connection.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; {_SCHEMA}")
        return connection

    def close(self) -> None:
        """Leave no journal beside the memo."""
        with suppress(sqlite3.DatabaseError):
            self._connection.execute("PRAGMA journal_mode=DELETE")
        self._connection.close()

    def table_id(self, evidence: object) -> str | None:
        """The id of the table that the same evidence (spec, versions, file stats) led to."""
        row = self._connection.execute(
            "SELECT table_id FROM identities WHERE evidence = ?", (json_digest(evidence),)
        ).fetchone()
        return row[0] if row else None

    def remember_table(self, evidence: object, table_id: str) -> None:
        """Keep a table's id for `table_id`."""
        self._connection.execute(
            "INSERT OR REPLACE INTO identities VALUES (?, ?)", (json_digest(evidence), table_id)
        )

    def image_keys(self) -> dict[str, tuple[Stat, bytes]]:
        """Absolute path -> ((size, mtime_ns, inode), content key)."""
        rows = self._connection.execute("SELECT path, size, mtime_ns, inode, key FROM images")
        return {path: ((size, mtime, inode), key) for path, size, mtime, inode, key in rows}

    def remember_images(self, rows: Iterable[tuple[str, Stat, bytes]]) -> None:
        """Keep content keys for `image_keys`."""
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?)",
            ((path, *stat, key) for path, stat, key in rows),
        )
        self._connection.execute("COMMIT")


def file_stat(path: str | Path) -> Stat:
    """(size, mtime_ns, inode). Raises OSError."""
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
