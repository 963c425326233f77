"""Records and caches: what is said of bytes, and the bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import xxhash

import vqa_cache
from benchmarks.fuzz.made_cache import make_cache
from benchmarks.fuzz.mutations import changed_bytes, changed_json
from vqa_cache.cache import create_cache
from vqa_cache.containers import Container
from vqa_cache.errors import CacheError
from vqa_cache.keys import canonical_json, json_digest
from vqa_cache.records.contents import ContentsRecord
from vqa_cache.records.record import CacheRecord, Record, encode_record, parse_record, read_record
from vqa_cache.records.shard import SealRecord, ShardRecord, WithdrawalRecord
from vqa_cache.records.split import SplitRecord
from vqa_cache.records.stored import BLOCK_BYTES
from vqa_cache.records.table import SpecRecord, TableRecord
from vqa_cache.table import Table
from vqa_cache.tools.explain import explain, in_words
from vqa_cache.tools.garbage import find_garbage
from vqa_cache.tools.transfer import copy_split, copy_table, copy_thumbnails
from vqa_cache.tools.verify import verify

Attempt = Callable[[Random], None]
_STEPS = 6  # of those that read a cache, after one input
_KINDS: tuple[type[Record], ...] = (
    *(CacheRecord, ContentsRecord, TableRecord, SpecRecord),
    *(ShardRecord, SealRecord, WithdrawalRecord, SplitRecord),
)


def prepare_records(folder: Path) -> Attempt:
    """One record is parsed, its bytes broken or its fields wrong under a right digest."""
    make_cache(folder / "cache")
    seeds = _records(folder / "cache")
    contents = [path.read_bytes() for path in seeds]
    kinds = {kind.format: kind for kind in _KINDS}

    def attempt(draw: Random) -> None:
        content = draw.choice(contents)
        kind = kinds[json.loads(content)["format"]]
        parse_record(_broken(draw, content, contents), kind, "here")

    return attempt


def prepare_caches(folder: Path) -> Attempt:
    """One file of a cache is broken; everything that reads a cache then reads it."""
    make_cache(folder / "cache")
    paths = sorted(path for path in (folder / "cache").rglob("*") if path.is_file())
    contents = {path: path.read_bytes() for path in paths}
    records = _records(folder / "cache")

    def attempt(draw: Random) -> None:
        path = draw.choice(records if draw.random() < 0.7 else paths)
        try:
            path.write_bytes(_broken(draw, contents[path], list(contents.values())))
            use(draw, folder / "cache", folder / "copy")
        finally:
            path.write_bytes(contents[path])
            shutil.rmtree(folder / "copy", ignore_errors=True)

    return attempt


def prepare_columns(folder: Path) -> Attempt:
    """Values of one array are wrong under right checksums: as another program may write them."""
    make_cache(folder / "cache")
    owners: list[tuple[Path, type[ShardRecord] | type[SplitRecord]]] = [
        (path, kind)
        for pattern, kind in (
            ("tables/**/records/*.json", ShardRecord),
            ("examples/**/0*.json", SplitRecord),
        )
        for path in sorted((folder / "cache").glob(pattern))
    ]

    for seal in (folder / "cache").rglob("seal.json"):  # which would hide the record
        seal.unlink()

    def attempt(draw: Random) -> None:
        path, kind = draw.choice(owners)
        record: ShardRecord | SplitRecord = read_record(path, kind)
        root = path.parent.parent if kind is ShardRecord else path.parent
        name = draw.choice(sorted(record.arrays))
        file = root / record.path(name)
        kept = {path: path.read_bytes(), file: file.read_bytes()}
        try:
            _rewrite(draw, record, name, path, file)
            use(draw, folder / "cache", folder / "copy")
        finally:
            for one, content in kept.items():
                one.write_bytes(content)
            shutil.rmtree(folder / "copy", ignore_errors=True)

    return attempt


def _rewrite(
    draw: Random, record: ShardRecord | SplitRecord, name: str, path: Path, file: Path
) -> None:
    array = record.arrays[name]
    content = bytearray(file.read_bytes())
    for _ in range(draw.randint(1, 3)):
        size = draw.choice((1, 4, 8))
        place = array.offset + draw.randrange(max(array.bytes - size, 0) + 1)
        if place + size <= array.offset + array.bytes:
            content[place : place + size] = draw.choice(
                (draw.randbytes(size), b"\xff" * size, b"\0" * size, b"\x7f" * size)
            )
    file.write_bytes(content)
    stored = bytes(content[array.offset : array.offset + array.bytes])
    blocks = tuple(
        xxhash.xxh3_64_hexdigest(stored[start : start + BLOCK_BYTES])
        for start in range(0, len(stored), BLOCK_BYTES)
    )
    files = list(record.files)
    files[array.file] = replace(
        files[array.file], xxh3_128=xxhash.xxh3_128_hexdigest(bytes(content))
    )
    arrays = {**record.arrays, name: replace(array, blocks=blocks)}
    path.write_bytes(encode_record(replace(record, files=tuple(files), arrays=arrays)))


def use(draw: Random, root: Path, target: Path) -> None:
    """Some of whatever reads a cache. A user's error in one does not hide the others."""
    with suppress(CacheError, OSError):
        cache = vqa_cache.open(root)
        steps: list[Callable[[], object]] = [
            cache.summary,
            cache._repr_html_,
            lambda: list(verify(cache)),
            lambda: list(find_garbage(cache, minutes=0)),
            lambda: [cache.examples(name) for name in cache.splits],
            lambda: [copy_split(cache, name, create_cache(target)) for name in cache.splits],
            lambda: copy_thumbnails(cache, create_cache(target)),
        ]
        for table in cache.tables.values():
            steps += [
                table.tensor,
                table.specs,
                table.texts,
                partial(getattr, table, "failed"),
                partial(_rows, table),
                partial(_explained, table, next(iter(cache.tables.values()))),
                partial(_copied, table, target, None),
                partial(_copied, table, target / "zarr", "zarr"),
                partial(_copied, table, target / "hdf5", "hdf5"),
            ]
        for step in draw.sample(steps, _STEPS):
            with suppress(CacheError, OSError):
                step()


def _rows(table: Table) -> object:
    return table.rows([key.tobytes() for key in table.keys])


def _explained(table: Table, other: Table) -> object:
    return list(in_words(explain(table, other)))


def _copied(table: Table, target: Path, container: Container | None) -> object:
    return copy_table(table, create_cache(target), container)


def _records(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*.json") if path.name != "zarr.json")


def _broken(draw: Random, content: bytes, others: list[bytes]) -> bytes:
    """Broken bytes; of a record, as often, wrong fields under a right digest."""
    if content[:1] != b"{" or draw.random() < 0.5:
        return changed_bytes(draw, content, others)
    record = json.loads(content)
    changed = changed_json(draw, {name: record[name] for name in record.keys() - {"digest"}})
    if isinstance(changed, dict):
        changed["digest"] = json_digest(changed)
    return canonical_json(changed) + b"\n"
