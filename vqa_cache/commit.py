"""Who commits looks again at what is there, with the cache's lock, before anything has its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vqa_cache.errors import NotACacheError
from vqa_cache.system.durable import locked

MARKER = "CACHE.json"


def cache_root(inside: Path) -> Path:
    """The folder of the cache that a path is in. Raises NotACacheError."""
    for folder in inside.absolute().parents:
        if (folder / MARKER).is_file():
            return folder
    raise NotACacheError(f"{inside}: is in no cache (no {MARKER} above it)")


@contextmanager
def committing(inside: Path) -> Iterator[None]:
    """Hold the lock of the cache that a path is in. No other writer puts anything in place
    meanwhile, so what is found to be absent stays absent. What takes long (encoding, syncing a
    shard) comes before."""
    with locked(cache_root(inside) / MARKER):
        yield
