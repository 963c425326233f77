"""What lies in a cache and is no part of it: unfinished, superseded, without a record."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vqa_cache.cache import Cache
from vqa_cache.examples import current_record
from vqa_cache.system.durable import is_temporary, live_writer


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
    for folder, folders, files in os.walk(root):
        for name in sorted((*folders, *files)):
            path = Path(folder, name)
            if is_temporary(path) and not live_writer(path):
                yield path, "unfinished work"
        folders[:] = sorted(name for name in folders if not is_temporary(name))
    for shard in sorted(root.glob("tables/*/*/*/*/shards/*")):
        # one with a damaged record stays: the record may be restored, and repair needs its name
        record = shard.parent.parent / "records" / f"{shard.stem}.json"
        if not is_temporary(shard) and not record.exists():
            yield shard, "a shard without a record"
    for split in sorted(root.glob("examples/*/*")):
        yield from _superseded(split)


def _superseded(split: Path) -> Iterator[tuple[Path, str]]:
    current = current_record(split)
    for path in sorted(split.glob("[0-9]*.*")):
        recorded = path.with_suffix(".json").exists()
        if current is not None and path.stem.isdecimal() and recorded:
            if int(path.stem) < current.generation:
                yield path, f"superseded by generation {current.generation}"
        elif not recorded:
            yield path, "columns without a record"


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
