"""Copying tables and splits into another cache, into the other container if asked to.

Everything is checked against its record on the way, and committed in the order of FORMAT.md
section 4.2, so a copy that was interrupted is continued by the same command.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vqa_cache.arrays import check_files, file_digest, read_texts
from vqa_cache.cache import Cache
from vqa_cache.commit import committing
from vqa_cache.containers import SUFFIX, Container
from vqa_cache.contents import (
    THUMBNAILS,
    list_contents,
    picture_path,
    picture_problem,
    read_contents,
)
from vqa_cache.dtypes import raw_rows
from vqa_cache.errors import CacheError, DamagedError, RefusedError
from vqa_cache.examples import current_record
from vqa_cache.keys import unpack_keys
from vqa_cache.reading import ArrayReader, read_array
from vqa_cache.records.record import encode_record
from vqa_cache.records.shard import ShardRecord
from vqa_cache.records.split import SplitRecord
from vqa_cache.records.stored import Stored
from vqa_cache.remedy import remedy
from vqa_cache.shard import ShardWriter, commit_shard
from vqa_cache.system.durable import (
    Workspace,
    create_file,
    make_folder,
    put_in_place,
    sync_tree,
    write_file,
)
from vqa_cache.table import Table
from vqa_cache.withdrawals import drop_thumbnails, withdrawn_images

_ROWS_AT_ONCE = 64
_MAY_DIFFER = {"spec", "environment"}


@dataclass(frozen=True)
class Copied:
    """What was done for one table or split: shards or files copied, and those there already."""

    name: str
    copied: int
    present: int


def copy_table(source: Table, target: Cache, container: Container | None) -> Copied:
    """Copy a table, its identity kept and its rows equal.

    Args:
        container: "hdf5" or "zarr" to convert to; None keeps what the table has.

    Raises:
        DamagedError: a file of the source differs from its record; no part of it was copied.
        RefusedError: the target has the table, begun with other settings.
    """
    table = _begin(source, target, container or source.record.container)
    for folder, records in source.listed_records().items():
        for name, record in records.items():
            place = table.folder / folder / f"{name}.json"
            if not place.exists():
                make_folder(place.parent, table.folder)
                write_file(place, encode_record(record))
    table.restore_records()
    there = {record.shard for record in table.shards}
    missing = [record for record in source.shards if record.shard not in there]
    for record in missing:
        _check(source.folder, record)
        if record.container == table.record.container:
            name = f"shards/{record.shard}{SUFFIX[record.container]}"
            with Workspace(table.folder / name) as unfinished:
                copy_files(source.folder, unfinished, record, name)
                commit_shard(table.folder, table.record, record, unfinished)
        else:
            _convert(source, table, record)
    table.seal()
    return Copied(table.name, len(missing), len(source.shards) - len(missing))


def _begin(source: Table, target: Cache, container: Container) -> Table:
    folder = target.path / "tables" / source.name
    for part in ("specs", "shards", "records"):
        make_folder(folder / part, target.path)
    wanted = replace(source.record, container=container)
    create_file(folder / "table.json", encode_record(wanted))
    table = Table(folder)
    there = table.record.as_json()
    for field, asked in sorted(wanted.as_json().items()):
        if field not in _MAY_DIFFER and there.get(field) != asked:
            raise RefusedError(
                f"table {source.name}: {target.path} has it with another {field} "
                "(vqa-cache explain tells more); copy into another cache"
            )
    return table


def _check(folder: Path, record: Stored) -> None:
    for problem in check_files(folder, record, content=True):
        raise DamagedError(f"{problem}; mend it first: {remedy(folder)}")


def copy_files(source: Path, unfinished: Path, record: Stored, name: str) -> None:
    """Copy the files of a record, bytes compared after writing.

    Args:
        source: what the record's paths start from.
        unfinished: what the container is written as.
        name: the container's path.
    """
    for file in record.files:
        written = unfinished / Path(file.path).relative_to(name)
        written.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file.path, written)
        if file_digest(written) != file.xxh3_128:
            raise DamagedError(f"{written}: differs from {source / file.path} when read")


def _convert(source: Table, target: Table, record: ShardRecord) -> None:
    planned = unpack_keys(record.planned_keys)
    failed = {one.position: one.error for one in record.failed}
    positions = [position for position in range(len(planned)) if position not in failed]
    texts = None
    if source.modality == "text":
        joined, edges = (read_array(source.folder, record, a) for a in ("texts", "text_offsets"))
        kept = dict(zip(positions, read_texts(joined, edges), strict=True))
        texts = [kept.get(position, "") for position in range(len(planned))]
    writer = ShardWriter(target.folder, target.record, planned, texts, record.shard)
    writer.failed.update(failed)
    writer.truncated = record.truncated
    with writer.abandoned_on_error():
        rows = raw_rows(ArrayReader(source.folder, record, "rows").mapped())
        offsets = read_array(source.folder, record, "offsets") if source.ragged else None
        for start in range(0, len(positions), _ROWS_AT_ONCE):
            here = positions[start : start + _ROWS_AT_ONCE]
            if offsets is None:
                writer.write(here, rows[start : start + len(here)])
            else:
                edges = offsets[start : start + len(here) + 1]
                writer.write(here, rows[edges[0] : edges[-1]], np.diff(edges).tolist())
    made = writer.commit()
    for name, array in record.arrays.items():
        other = made.arrays[name]
        if replace(other, file=array.file, offset=array.offset) != array:
            raise CacheError(
                f"table {target.name}: shard {record.shard}: {name!r} differs from that of the "
                f"{record.container} shard it was made from; delete the copy and begin again"
            )


def copy_split(source: Cache, name: str, target: Cache) -> Copied:
    """Copy the current generation of a split.

    Raises:
        DamagedError: its file differs from its record, or no record of it is valid.
        RefusedError: the target has another split of this name.
    """
    folder, goal = (cache.path / "examples" / name for cache in (source, target))
    record = source.split_record(name)
    if _has_split(goal, record):
        list_contents(target.path, splits=[name])  # a copy may have ended before it did
        return Copied(name, 0, 1)
    _check(folder, record)
    make_folder(goal, target.path)
    columns = record.files[0].path
    with Workspace(goal / columns) as unfinished:
        copy_files(folder, unfinished, record, columns)
        sync_tree(unfinished)
        with committing(goal):
            if _has_split(goal, record):  # another writer's, by now
                return Copied(name, 0, 1)
            put_in_place(unfinished, goal / columns)
            write_file(goal / f"{record.generation:06d}.json", encode_record(record))
    list_contents(target.path, splits=[name])
    return Copied(name, 1, 0)


def _has_split(folder: Path, record: SplitRecord) -> bool:
    """Whether a split's folder holds this content. Raises RefusedError where it holds another."""
    there = current_record(folder)
    if there is None or there.content == record.content:
        return there is not None
    raise RefusedError(
        f"split {record.name}: {folder} has another one ({there.examples:,} examples, here "
        f"{record.examples:,}); copy into another cache"
    )


def copy_thumbnails(source: Cache, target: Cache) -> int:
    """Copy the small pictures that the target lacks, but for those of images that it withdrew,
    whose pictures it gives up; the number of those copied.

    Raises:
        DamagedError: one is not what the source lists.
    """
    drop_thumbnails(target)
    withdrawn = {key.hex() for key in withdrawn_images(target)}
    listed, there = (read_contents(cache.path).thumbnails for cache in (source, target))
    missing = {
        key: entry
        for key, entry in listed.items()
        if key not in withdrawn
        and (there.get(key) != entry or picture_problem(target.path, key, entry))
    }
    make_folder(target.path / THUMBNAILS, target.path)
    for key, entry in missing.items():
        if problem := picture_problem(source.path, key, entry):
            raise DamagedError(f"{problem}; run stage 1 again on {source.path}")
        write_file(picture_path(target.path, key), picture_path(source.path, key).read_bytes())
    list_contents(target.path, pictures=missing)
    return len(missing)
