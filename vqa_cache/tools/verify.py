"""Checking a cache against its records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from vqa_cache.arrays import check_files, read_array
from vqa_cache.cache import Cache
from vqa_cache.containers import SUFFIX
from vqa_cache.errors import CacheError, DamagedError
from vqa_cache.keys import unpack_keys
from vqa_cache.records.record import R, read_record
from vqa_cache.records.shard import SealRecord, ShardRecord, read_shard_record
from vqa_cache.records.split import read_split_record
from vqa_cache.records.table import SpecRecord
from vqa_cache.shard import shard_name
from vqa_cache.system.durable import is_temporary
from vqa_cache.table import Table
from vqa_cache.withdrawals import read_withdrawal, withdrawal_paths


def verify(cache: Cache, *, content: bool = True) -> Iterator[str]:
    """Yield one line for each thing that is wrong: where, found, expected.

    Args:
        content: check every byte of every file; otherwise records and file sizes alone.
    """
    for folder in sorted((cache.path / "tables").glob("*/*/*/*")):
        try:
            table = Table(folder)
        except FileNotFoundError:
            if any(_finished(folder / part) for part in ("records", "shards")):
                yield f"{folder}: has no table.json, so its shards are part of no table"
            continue
        except (CacheError, OSError) as error:
            yield str(error)
            continue
        yield from _verify_table(table, content=content)
        yield from _verify_withdrawals(table)
        yield from _verify_indices(table)
    yield from _verify_examples(cache.path / "examples", content=content)


def _finished(folder: Path) -> list[Path]:
    """What lies in a folder, present or not, but for unfinished work."""
    return sorted(path for path in folder.glob("*") if not is_temporary(path))


def _verify_examples(folder: Path, *, content: bool) -> Iterator[str]:
    for path in sorted(folder.glob("*/*/[0-9]*.json")):
        record, problem = _read(read_split_record, path)
        if record is None:
            yield problem
        else:
            yield from check_files(path.parent, record, content=content)
    for path in sorted(folder.glob("*/*/[0-9]*.h5")):
        if not path.with_suffix(".json").exists():
            yield f"{path}: has no record, so it is not part of the split"


def _read(read: Callable[..., R], *args: object) -> tuple[R | None, str]:
    try:
        return read(*args), ""
    except (CacheError, OSError) as error:
        return None, str(error)


def _verify_table(table: Table, *, content: bool) -> Iterator[str]:
    known = set()
    for path in _finished(table.folder / "records"):
        record, problem = _read(read_shard_record, path, table.record)
        if record is None:
            yield problem
            continue
        known.add(record.shard + SUFFIX[record.container])
        planned = unpack_keys(record.planned_keys)
        retries = range(_MOST_RETRIES)
        if not any(shard_name(table.id, planned, n) == path.stem for n in retries):
            yield f"{path}: its name is not the digest of its table and planned keys"
        broken = list(check_files(table.folder, record, content=content))
        yield from broken
        if content and not broken:
            yield from _verify_keys(table, record, path)
    for shard in _finished(table.folder / "shards"):
        if shard.name not in known:
            yield f"{shard}: has no valid record, so it is not part of the table"


def _verify_withdrawals(table: Table) -> Iterator[str]:
    for path in withdrawal_paths(table.folder):
        try:
            read_withdrawal(path, table.id)
        except CacheError as error:
            yield str(error)


def _verify_indices(table: Table) -> Iterator[str]:
    """What is only there to find or to open the table fast, and rebuilt by stage 1."""
    for path in _finished(table.folder / "specs"):
        record, problem = _read(read_record, path, SpecRecord)
        if record is None:
            yield problem
        elif path.name != record.spec.file_name:
            yield f"{path}: its name is not the digest of its spec"
    path = table.folder / "seal.json"
    if not path.exists():
        return
    seal, problem = _read(read_record, path, SealRecord)
    if seal is None:
        yield problem
        return
    for name, sealed in seal.records.items():
        record = table.folder / "records" / f"{name}.json"
        stored, _ = _read(read_shard_record, record, table.record)
        if stored is not None and stored != sealed:
            yield f"{path}: shard {name} differs from its record"


_MOST_RETRIES = 100


def _verify_keys(table: Table, record: ShardRecord, path: Path) -> Iterator[str]:
    try:
        stored = read_array(table.folder, record, "keys")
        read_array(table.folder, record, "rows")
        offsets = read_array(table.folder, record, "offsets") if table.ragged else None
    except DamagedError as error:
        yield str(error)
        return
    if not np.array_equal(stored, record.keys):
        yield f"{path}: the shard's keys differ from the record's"
    if offsets is not None:
        tokens = record.arrays["rows"].shape[0]
        ends = (len(offsets) - 1, *offsets[[0, -1]].tolist()) if len(offsets) else None
        if ends != (record.rows, 0, tokens) or (np.diff(offsets) < 0).any():
            yield f"{path}: its offsets do not cut {tokens} tokens into {record.rows} rows"
