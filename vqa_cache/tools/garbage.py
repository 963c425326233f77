"""What lies in a cache and is no part of it: unfinished, superseded, without a record."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from vqa_cache.cache import Cache
from vqa_cache.containers import SUFFIX
from vqa_cache.errors import CacheError, DamagedError, NewerFormatError
from vqa_cache.examples import current_record
from vqa_cache.keys import KEY_BYTES, unpack_keys
from vqa_cache.records.names import HEX_32
from vqa_cache.records.shard import read_shard_record
from vqa_cache.system.durable import has_writer, is_temporary
from vqa_cache.table import Table

_GENERATION = re.compile(r"\d{6,}\.(h5|json)")


@dataclass(frozen=True)
class Garbage:
    """A file or folder that no reader needs."""

    path: Path
    bytes: int
    why: str


def find_garbage(cache: Cache, *, minutes: float) -> Iterator[Garbage]:
    """Yield what may be deleted.

    Args:
        minutes: what changed since is left alone, as a writer may be about to record it.
    """
    before = time.time() - minutes * 60
    for path, why in _candidates(cache.path):
        size, changed = _size_and_time(path)
        if changed <= before:
            yield Garbage(path, size, why)


def _candidates(root: Path) -> Iterator[tuple[Path, str]]:
    """What may go, of names that this format gives alone; nothing behind a symbolic link, which
    leads to what may be somebody else's."""
    for folder, folders, files in os.walk(root):
        for name in sorted((*folders, *files)):
            path = Path(folder, name)
            if is_temporary(path) and not has_writer(path):
                yield path, "unfinished work"
        folders[:] = sorted(name for name in folders if not is_temporary(name))
    for table in _own(root, "tables/*/*/*/*"):
        with suppress(CacheError, OSError):  # nothing is known of a damaged table
            yield from _unrecorded(Table(table))
    for record in _own(root, "tables/*/*/*/*/records/*.json"):
        yield from _replaced(record)
    for split in _own(root, "examples/*/*"):
        yield from _superseded(split)


def _replaced(path: Path) -> Iterator[tuple[Path, str]]:
    """A damaged commit record and its shard, where other records say all of its keys, or there is
    no shard. Where they do not it stays: it may be restored, and repair needs its name."""
    folder = path.parent.parent
    shards = sorted((folder / "shards").glob(f"{path.stem}.*"))
    try:
        table = Table(folder)
        if path.stem in {record.shard for record in table.shards}:
            return  # valid, or the seal lists it and a writer restores it
        known = {*unpack_keys(table.keys), *table.failed}
        keys = [key for shard in shards for key in _keys_in(shard)]
    except (CacheError, OSError, ValueError, KeyError):  # h5py's, where the shard is damaged, too
        return
    try:
        read_shard_record(path, table.record)
    except NewerFormatError:
        return
    except DamagedError:
        if HEX_32.fullmatch(path.stem) and known.issuperset(keys):
            for one in (path, *shards):
                yield one, "damaged, and its rows are elsewhere"


def _keys_in(shard: Path) -> list[bytes]:
    """The keys that a shard holds, without its record."""
    if shard.suffix == SUFFIX["zarr"]:
        raw = (shard / "keys" / "c" / "0" / "0").read_bytes()
    else:
        with h5py.File(shard, "r") as file:
            raw = file["keys"][...].astype(np.uint8).tobytes()
    return [raw[start : start + KEY_BYTES] for start in range(0, len(raw), KEY_BYTES)]


def _own(root: Path, pattern: str) -> list[Path]:
    """Paths of a pattern that no symbolic link below the cache's folder leads to."""
    return sorted(
        path
        for path in root.glob(pattern)
        if not any(
            root.joinpath(*path.relative_to(root).parts[:n]).is_symlink()
            for n in range(1, len(path.relative_to(root).parts) + 1)
        )
    )


def _unrecorded(table: Table) -> Iterator[tuple[Path, str]]:
    sealed = {record.shard for record in table.shards}
    for shard in _own(table.folder, "shards/*"):
        # one with a damaged record stays: the record may be restored, and repair needs its name
        record = table.folder / "records" / f"{shard.stem}.json"
        ours = HEX_32.fullmatch(shard.stem) and shard.suffix in SUFFIX.values()
        if ours and not os.path.lexists(record) and shard.stem not in sealed:
            yield shard, "a shard without a record"


def _superseded(split: Path) -> Iterator[tuple[Path, str]]:
    current = None
    with suppress(DamagedError):  # of the newest one: then the others may be all that is left
        current = current_record(split)
    for path in sorted(split.iterdir()) if split.is_dir() else []:
        if path.is_symlink() or not _GENERATION.fullmatch(path.name):
            continue
        if not os.path.lexists(path.with_suffix(".json")):
            yield path, "columns without a record"
        elif current is not None and int(path.stem) < current.generation:
            yield path, f"superseded by generation {current.generation}"


def _size_and_time(path: Path) -> tuple[int, float]:
    """Bytes of a file or of all in a folder, and when the last of it changed."""
    paths = [path, *path.rglob("*")] if path.is_dir() else [path]
    size, changed = 0, 0.0
    for one in paths:
        try:
            stat = one.stat()
        except FileNotFoundError:  # a writer has just finished it
            continue
        size += stat.st_size if one.is_file() else 0
        changed = max(changed, stat.st_mtime)
    return size, changed
