"""Checking a cache against its records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vqa_cache.arrays import check_files, read_array
from vqa_cache.cache import Cache
from vqa_cache.durable import is_temporary
from vqa_cache.errors import CacheError, DamagedError
from vqa_cache.keys import pack_keys
from vqa_cache.records import Kind, Record, read_record
from vqa_cache.shard import planned_keys as planned
from vqa_cache.shard import row_keys, shard_name
from vqa_cache.table import Table


def verify(cache: Cache, *, content: bool = True) -> Iterator[str]:
    """Yield one line for each thing that is wrong: where, found, expected.

    Args:
        content: check every byte of every file; otherwise records and file sizes alone.
    """
    for path in sorted((cache.path / "tables").glob("*/*/*/*/table.json")):
        try:
            table = Table(path.parent)
        except CacheError as error:
            yield str(error)
            continue
        yield from _verify_table(table, content=content)
    for path in sorted((cache.path / "examples").glob("*/*/[0-9]*.json")):
        record, problem = _read(path, "examples")
        if record is None:
            yield problem
        else:
            yield from check_files(path.parent, record, content=content)


def _read(path: Path, kind: Kind) -> tuple[Record | None, str]:
    try:
        return read_record(path, kind), ""
    except (CacheError, OSError) as error:
        return None, str(error)


def _verify_table(table: Table, *, content: bool) -> Iterator[str]:
    known = set()
    for path in sorted((table.folder / "records").glob("*.json")):
        if is_temporary(path):
            continue
        record, problem = _read(path, "shard")
        if record is None:
            yield problem
            continue
        known |= {Path(file["path"]).parts[1] for file in record["files"]}
        if record["table"] != table.id or record["shard"] != path.stem:
            yield f"{path}: belongs to table {record['table']}, shard {record['shard']}"
            continue
        retries = range(_MOST_RETRIES)
        if not any(shard_name(table.id, planned(record), n) == path.stem for n in retries):
            yield f"{path}: its name is not the digest of its table and planned keys"
        broken = list(check_files(table.folder, record, content=content))
        yield from broken
        if content and not broken:
            yield from _verify_keys(table, record, path)
    for shard in sorted((table.folder / "shards").iterdir()):
        if not is_temporary(shard) and shard.name not in known:
            yield f"{shard}: has no valid record, so it is not part of the table"


_MOST_RETRIES = 100


def _verify_keys(table: Table, record: Record, path: Path) -> Iterator[str]:
    try:
        stored = read_array(table.folder, record, "keys")
        read_array(table.folder, record, "rows")
    except DamagedError as error:
        yield str(error)
        return
    if not np.array_equal(stored, pack_keys(row_keys(record))):
        yield f"{path}: the shard's keys differ from the record's"
