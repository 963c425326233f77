"""Checking a cache against its records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from vqa_cache.arrays import check_files
from vqa_cache.cache import Cache
from vqa_cache.containers import SUFFIX
from vqa_cache.contents import FILE as CONTENTS
from vqa_cache.contents import THUMBNAILS, picture_problem, split_record
from vqa_cache.errors import CacheError, DamagedError, is_shortage
from vqa_cache.keys import unpack_keys
from vqa_cache.reading import read_array
from vqa_cache.records.contents import ContentsRecord
from vqa_cache.records.record import R, read_record
from vqa_cache.records.shard import ShardRecord, read_shard_record
from vqa_cache.records.split import read_split_record
from vqa_cache.records.table import TableRecord
from vqa_cache.seal import FILE as SEAL
from vqa_cache.seal import FOLDERS, TABLE, empty_seal, read_seal, read_spec, read_table_record
from vqa_cache.shard import shard_name
from vqa_cache.system.durable import is_temporary
from vqa_cache.table import Table
from vqa_cache.withdrawals import read_withdrawal

T = TypeVar("T")


def verify(cache: Cache, *, content: bool = True) -> Iterator[str]:
    """Yield one line for each thing that is wrong: where, found, expected.

    Args:
        content: check every byte of every file; otherwise records and file sizes alone.

    Raises:
        OSError, MemoryError: memory or file handles ran out, so nothing is known.
    """
    for folder in sorted((cache.path / "tables").glob("*/*/*/*")):
        table, problem = _read(Table, folder)
        if table is not None:
            yield from _verify_table(table, content=content)
        elif (folder / TABLE).exists():
            yield problem
        elif any(_finished(folder / part) for part in ("shards", *FOLDERS.values())):
            yield f"{folder}: has no table.json, so its shards are part of no table"
    yield from _verify_examples(cache.path / "examples", content=content)
    yield from _verify_contents(cache.path)


def _finished(folder: Path) -> list[Path]:
    """What lies in a folder, present or not, but for unfinished work."""
    return sorted(path for path in folder.glob("*") if not is_temporary(path))


def _read(read: Callable[..., T], *args: object) -> tuple[T | None, str]:
    """What was read, or what is wrong with it."""
    try:
        return read(*args), ""
    except (CacheError, OSError) as error:
        if is_shortage(error):
            raise
        return None, str(error)


def _verify_table(table: Table, *, content: bool) -> Iterator[str]:
    own, problem = _read(read_table_record, table.folder)
    if own is None:
        yield f"{problem}; the next run of stage 1 writes it again"
    seal, problem = _read(read_seal, table.folder, table.record)
    if seal is None:
        yield f"{problem}; the next run of stage 1 writes it"
        seal = empty_seal(table.record)
    records = dict(seal.records)
    problems, found = _verify_records(table, "records", seal.records, read_shard_record)
    yield from problems
    records |= found
    yield from _verify_records(table, "withdrawals", seal.withdrawals, read_withdrawal)[0]
    yield from _verify_records(table, "specs", seal.specs, read_spec)[0]
    for _, record in sorted(records.items()):
        yield from _verify_shard(table, record, content=content)
    known = {record.shard + SUFFIX[record.container] for record in records.values()}
    for shard in _finished(table.folder / "shards"):
        if shard.name not in known:
            yield f"{shard}: has no valid record, so it is not part of the table"


def _verify_records(
    table: Table, field: str, sealed: Mapping[str, R], read: Callable[[Path, TableRecord], R]
) -> tuple[list[str], dict[str, R]]:
    """What is wrong with the records of one kind, and the others by name."""
    folder, problems, found = table.folder / FOLDERS[field], [], {}
    paths = {path.stem: path for path in _finished(folder)}
    for name, path in paths.items():
        record, problem = _read(read, path, table.record)
        if record is None:
            problems.append(problem)
        elif sealed.get(name, record) == record:
            found[name] = record
        else:
            problems.append(f"{path}: differs from what {SEAL} beside its folder lists")
    for name in sorted(sealed.keys() - paths.keys()):
        problems.append(f"{folder / name}.json: missing; the next run of stage 1 writes it again")
    return problems, found


_MOST_RETRIES = 100


def _verify_shard(table: Table, record: ShardRecord, *, content: bool) -> Iterator[str]:
    path = table.folder / "records" / f"{record.shard}.json"
    planned = unpack_keys(record.planned_keys)
    if not any(shard_name(table.id, planned, n) == record.shard for n in range(_MOST_RETRIES)):
        yield f"{path}: its name is not the digest of its table and planned keys"
    broken = list(check_files(table.folder, record, content=content))
    yield from broken
    if content and not broken:
        yield from _verify_keys(table, record, path)


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


def _verify_contents(root: Path) -> Iterator[str]:
    listed, problem = _read(read_record, root / CONTENTS, ContentsRecord)
    if listed is None:
        yield f"{problem}; the next run of stage 1 writes it"
        return
    for name in listed.splits:
        record, unreadable = _read(split_record, root, name)
        if record is None:
            yield str(unreadable)
    for key, entry in listed.thumbnails.items():
        if wrong := picture_problem(root, key, entry):
            yield f"{wrong}; the next run of stage 1 writes it again"
    for path in _finished(root / THUMBNAILS):
        if path.name not in {f"{key}.jpg" for key in listed.thumbnails}:
            yield f"{path}: is not listed in {root / CONTENTS}, so nobody knows what it should be"


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
