"""Copying tables and splits into another cache, into the other container if asked to.

Everything is checked against its record on the way, and committed in the order of FORMAT.md
section 4.2, so a copy that was interrupted is continued by the same command.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vqa_cache.arrays import check_files, file_digest, read_array, read_texts
from vqa_cache.cache import Cache
from vqa_cache.containers import SUFFIX, Container
from vqa_cache.dtypes import numpy_type
from vqa_cache.errors import CacheError, DamagedError, RefusedError
from vqa_cache.examples import current_record
from vqa_cache.identity import add_spec
from vqa_cache.keys import unpack_keys
from vqa_cache.records.names import HEX_32
from vqa_cache.records.record import encode_record
from vqa_cache.records.shard import ShardRecord
from vqa_cache.records.stored import Stored
from vqa_cache.shard import ShardWriter
from vqa_cache.spec import EncoderSpec
from vqa_cache.system.durable import (
    create_file,
    publish,
    removed_on_error,
    temporary_path,
    write_file,
)
from vqa_cache.table import Table
from vqa_cache.withdrawals import (
    drop_thumbnails,
    read_withdrawal,
    withdraw,
    withdrawal_paths,
    withdrawn_images,
)

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
    for path in withdrawal_paths(source.folder):
        gone = read_withdrawal(path, source.id)
        withdraw(table.folder, table.id, gone.split_keys(), gone.reason)
    for spec in source.specs():
        add_spec(table, EncoderSpec(**spec.as_json()))
    table.read_records()
    there = {record.shard for record in table.shards}
    missing = [record for record in source.shards if record.shard not in there]
    for record in missing:
        _check(source.folder, record)
        if record.container == table.record.container:
            name = f"shards/{record.shard}{SUFFIX[record.container]}"
            copy_files(source.folder, table.folder, record, name)
            write_file(table.folder / "records" / f"{record.shard}.json", encode_record(record))
        else:
            _convert(source, table, record)
    table.seal()
    return Copied(table.name, len(missing), len(source.shards) - len(missing))


def _begin(source: Table, target: Cache, container: Container) -> Table:
    folder = target.path / "tables" / source.name
    for part in ("specs", "shards", "records"):
        (folder / part).mkdir(parents=True, exist_ok=True)
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
        raise DamagedError(f"{problem}; mend it first: python -m precompute ... --repair")


def copy_files(source: Path, target: Path, record: Stored, name: str) -> None:
    """Publish the files of a record below another folder, bytes compared after writing.

    Args:
        name: the container's path in either folder.
    """
    temporary = temporary_path(target / name)
    with removed_on_error(temporary):
        for file in record.files:
            inner = Path(file.path).relative_to(name)
            written = temporary / inner if inner.parts else temporary
            written.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file.path, written)
            if file_digest(written) != file.xxh3_128:
                raise DamagedError(f"{written}: differs from {source / file.path} when read")
        publish(temporary, target / name)


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
    with removed_on_error(writer.temporary):
        rows = _stored_rows(source, record)
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


def _stored_rows(table: Table, record: ShardRecord) -> npt.NDArray[Any]:
    """The rows of a shard, mapped (bfloat16 as uint16)."""
    array = record.arrays["rows"]
    kind = numpy_type(array.dtype)
    if not array.bytes:
        return np.empty(array.shape, kind)
    return np.memmap(table.folder / record.path("rows"), kind, "r", array.offset, array.shape)


def copy_split(source: Cache, name: str, target: Cache) -> Copied:
    """Copy the current generation of a split.

    Raises:
        DamagedError: its file differs from its record, or no record of it is valid.
        RefusedError: the target has another split of this name.
    """
    folder, goal = (cache.path / "examples" / name for cache in (source, target))
    record = current_record(folder)
    if record is None:
        raise DamagedError(f"{folder}: split {name!r} has no valid record, nothing to copy")
    there = current_record(goal) if goal.exists() else None
    if there is not None and there.content == record.content:
        return Copied(name, 0, 1)
    if there is not None:
        raise RefusedError(
            f"split {name}: {target.path} has another one ({there.examples:,} examples, here "
            f"{record.examples:,}); copy into another cache"
        )
    _check(folder, record)
    goal.mkdir(parents=True, exist_ok=True)
    copy_files(folder, goal, record, f"{record.generation:06d}.h5")
    write_file(goal / f"{record.generation:06d}.json", encode_record(record))
    return Copied(name, 1, 0)


def copy_thumbnails(source: Cache, target: Cache) -> int:
    """Copy the small pictures that the target lacks, but for those of images that it withdrew,
    whose pictures it gives up; the number of those copied."""
    drop_thumbnails(target)
    goal, withdrawn = target.path / "thumbnails", withdrawn_images(target)
    missing = [
        path
        for path in sorted((source.path / "thumbnails").glob("*.jpg"))
        if HEX_32.fullmatch(path.stem)
        and bytes.fromhex(path.stem) not in withdrawn
        and path.is_file()
        and not path.is_symlink()  # it may lead to anything
        and not (goal / path.name).exists()
    ]
    for path in missing:
        goal.mkdir(exist_ok=True)
        write_file(goal / path.name, path.read_bytes())
    return len(missing)
