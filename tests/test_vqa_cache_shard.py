"""Writing a shard: its name, gaps, the order of a commit, second writers, repair."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import begin, commit, numbered_keys, stored
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa_cache import shard
from vqa_cache.errors import DamagedError
from vqa_cache.keys import unpack_keys
from vqa_cache.records.record import read_record
from vqa_cache.records.shard import Failure, ShardRecord
from vqa_cache.shard import ShardWriter, shard_name
from vqa_cache.system.durable import remove
from vqa_cache.table import Table
from vqa_cache.tools.verify import verify

KEYS = numbered_keys(5)
VALUES = np.arange(20, dtype=np.float32).reshape(5, 4)


def writer(table: Table, keys: list[bytes] = KEYS) -> ShardWriter:
    return ShardWriter(table.folder, table.record, keys, None, shard_name(table.id, keys))


def files(table: Table) -> dict[str, bytes]:
    return {
        str(path.relative_to(table.folder)): path.read_bytes()
        for path in table.folder.rglob("*")
        if path.is_file()
    }


def problems(table: Table) -> list[str]:
    from vqa_cache.cache import Cache

    return list(verify(Cache(table.folder.parents[4])))


def test_a_name_follows_from_the_table_the_keys_and_their_order() -> None:
    table = "0123456789abcdef" * 2
    whole = bytes.fromhex(table) + b"".join(KEYS)
    assert shard_name(table, KEYS) == hashlib.sha256(whole).hexdigest()[:32]
    assert shard_name(table, KEYS, 2) == hashlib.sha256(whole + b"retry2").hexdigest()[:32]
    assert shard_name(table, KEYS[::-1]) != shard_name(table, KEYS)


def test_the_shard_is_named_before_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = begin(tmp_path / "cache")
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def noting_sync(descriptor: int) -> None:
        done.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).parent.name)
        sync(descriptor)

    def noting_replace(source: Path, target: Path) -> None:
        done.append(f"name {target.relative_to(table.folder)}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(os, "replace", noting_replace)
    commit(table, KEYS, VALUES)
    name = shard_name(table.id, KEYS)
    label = table.folder.name  # syncing a folder shows as its parent's name
    done = [what if ".tmp-" not in what else "sync unfinished" for what in done]
    assert done[-6:] == [
        "sync unfinished", f"name shards/{name}.h5", f"sync {label}",
        "sync unfinished", f"name records/{name}.json", f"sync {label}",
    ]  # fmt: skip


def test_a_crash_between_the_two_leaves_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = begin(tmp_path / "cache")
    replace = os.replace

    def dying(source: Path, target: Path) -> None:
        if target.suffix == ".json":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        commit(table, KEYS, VALUES)
    monkeypatch.undo()
    assert len(Table(table.folder)) == 0
    assert len(problems(table)) == 1
    commit(table, KEYS, VALUES)
    assert len(Table(table.folder)) == 5
    assert problems(table) == []


@pytest.mark.parametrize("container", ["hdf5", "zarr"])
def test_a_second_writer_drops_its_copy(tmp_path: Path, container: str) -> None:
    table = begin(tmp_path / "cache", container=container)
    first, second = writer(table), writer(table)
    for one, values in ((first, VALUES), (second, VALUES + 1)):
        one.write([0, 1, 2, 3, 4], stored(values, "float16"))
    record = first.commit()
    before = {name: content for name, content in files(table).items() if ".tmp-" not in name}
    assert len(files(table)) > len(before)
    second.failed[3] = "only here"
    assert second.commit() == record
    assert files(table) == before
    assert problems(table) == []
    assert Table(table.folder).tensor().tolist() == VALUES.tolist()


@pytest.mark.parametrize("container", ["hdf5", "zarr"])
def test_a_shard_without_a_record_is_replaced(tmp_path: Path, container: str) -> None:
    table = begin(tmp_path / "cache", container=container)
    record = commit(table, KEYS, VALUES)
    before = files(table)
    (table.folder / "records" / f"{record.shard}.json").unlink()
    for path in (table.folder / "shards").rglob("*"):
        if path.is_file():
            path.write_bytes(b"half")
    assert commit(table, KEYS, VALUES) == record
    assert files(table) == before


def test_a_damaged_record_is_written_again(tmp_path: Path) -> None:
    table = begin(tmp_path / "cache")
    record = commit(table, KEYS, VALUES)
    path = table.folder / "records" / f"{record.shard}.json"
    good = path.read_bytes()
    path.write_bytes(good[:50])
    assert len(Table(table.folder)) == 0
    commit(table, KEYS, VALUES)
    assert path.read_bytes() == good


@pytest.mark.parametrize("container", ["hdf5", "zarr"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_rows_come_in_any_order(tmp_path: Path, container: str, dtype: str) -> None:
    table = begin(tmp_path / "cache", dtype=dtype, container=container)
    one = writer(table)
    for positions in ([4, 0], [1], [2, 3]):
        one.write(positions, stored(VALUES[positions], dtype))
    one.commit()
    assert Table(table.folder).tensor().float().tolist() == VALUES.tolist()


@settings(max_examples=20)
@given(st.sets(st.integers(0, 6)), st.sampled_from(["hdf5", "zarr"]), st.booleans())
def test_failed_items_leave_no_trace_in_the_shard(
    tmp_path_factory: pytest.TempPathFactory, failed: set[int], container: str, texts: bool
) -> None:
    modality = "text" if texts else "image"
    items: list[Any] = [f"text {n * 'x'}é" for n in range(7)] if texts else numbered_keys(7)
    values = np.arange(42, dtype=np.float32).reshape(7, 2, 3)
    how: dict[str, Any] = {"row_shape": (2, 3), "container": container, "modality": modality}
    root = tmp_path_factory.mktemp("gaps")
    table = begin(root / "gaps", **how)
    record = commit(table, items, values, failed=dict.fromkeys(failed, "bad"))
    kept = [n for n in range(7) if n not in failed]
    fresh = Table(table.folder)
    assert record.rows == len(fresh) == len(kept)
    assert fresh.tensor().tolist() == values[kept].tolist()
    assert set(fresh.failed.values()) <= {"bad"}
    assert len(fresh.failed) == len(failed)
    planned = unpack_keys(record.planned_keys)
    assert len(planned) == 7
    assert unpack_keys(record.keys) == [planned[n] for n in kept]
    assert set(record.failures) == {planned[n] for n in failed}
    if texts:
        assert fresh.texts() == [items[n] for n in kept]
    assert problems(table) == []
    # the file is that of the kept items alone, whatever was written between
    plain = begin(root / "plain", **how)
    commit(plain, [items[n] for n in kept], values[kept])
    contents = []
    for folder in (table.folder, plain.folder):
        [shard] = (folder / "shards").iterdir()
        paths = sorted(path for path in shard.rglob("*") if path.is_file()) or [shard]
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((2, 5), "float16"),
        np.zeros((1, 4), "float16"),
        np.zeros((2, 4), "float32"),
        np.zeros((2, 4), "uint16"),
    ],
)
def test_rows_of_another_kind_are_refused(tmp_path: Path, rows: np.ndarray) -> None:
    table = begin(tmp_path / "cache")
    with pytest.raises(ValueError, match=r"rows .*, expected float16\[2, 4\]"):
        writer(table).write([0, 1], rows)


def test_an_abandoned_shard_leaves_nothing(tmp_path: Path) -> None:
    for container in ("hdf5", "zarr"):
        table = begin(tmp_path / container, container=container)
        before = files(table)
        one = writer(table)
        one.write([0], stored(VALUES[:1], "float16"))
        one.abandon()
        assert files(table) == before


@pytest.mark.parametrize("container", ["hdf5", "zarr"])
def test_repair_writes_the_same_bytes_again(tmp_path: Path, container: str) -> None:
    table = begin(tmp_path / "cache", container=container)
    record = commit(table, KEYS, VALUES, failed={1: "bad"})
    before = files(table)
    broken = table.folder / record.path("rows")
    broken.write_bytes(broken.read_bytes()[:-3])
    again = writer(table)
    again.write([0, 1, 2, 3, 4], stored(VALUES, "float16"))
    again.failed[1] = "bad"
    again.repair(record)
    assert files(table) == before


def test_repair_never_replaces_by_other_bytes(tmp_path: Path) -> None:
    table = begin(tmp_path / "cache")
    record = commit(table, KEYS, VALUES)
    [shard] = (table.folder / "shards").iterdir()
    shard.write_bytes(b"damaged")
    again = writer(table)
    again.write([0, 1, 2, 3, 4], stored(VALUES + 1, "float16"))
    with pytest.raises(DamagedError, match=f"shard {record.shard} of .* differs from its"):
        again.repair(record)
    assert shard.read_bytes() == b"damaged"
    assert [path.name for path in (table.folder / "shards").iterdir()] == [shard.name]


def test_a_record_says_all_of_the_plan(tmp_path: Path) -> None:
    table = begin(tmp_path / "cache", container="zarr")
    record = commit(table, KEYS, VALUES, failed={4: "truncated", 0: "missing"})
    assert record == read_record(table.folder / "records" / f"{record.shard}.json", ShardRecord)
    assert record.table == table.id
    assert record.container == "zarr"
    assert record.planned == b"".join(KEYS)
    assert record.failed == (Failure(0, "missing"), Failure(4, "truncated"))
    paths = [file.path for file in record.files]
    assert paths == sorted(paths)
    assert all(path.startswith(f"shards/{record.shard}.zarr/") for path in paths)
    assert {path.split("/")[-1] for path in paths} == {"zarr.json", "0"}


@pytest.mark.parametrize("container", ["hdf5", "zarr"])
def test_a_writer_that_comes_second_looks_again_after_the_sync(
    tmp_path: Path, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saw no record, the other commits while it syncs, it dies right after: the other's shard
    and record stay whole, also where this one lacks an image that the other could read."""
    table = begin(tmp_path / "cache", container=container)
    first, second = writer(table), writer(table)
    for one in (first, second):
        one.write([0, 1, 2, 3, 4], stored(VALUES, "float16"))
    second.failed[2] = "cannot be read (Input/output error)"
    sync = shard.sync_tree
    made: list[ShardRecord] = []

    def meanwhile(path: Path) -> None:
        sync(path)
        monkeypatch.setattr(shard, "sync_tree", sync)
        made.append(first.commit())
        monkeypatch.setattr(shard, "put_in_place", dying)

    def dying(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shard, "sync_tree", meanwhile)
    assert second.commit() == made[0]
    assert problems(table) == []
    assert Table(table.folder).tensor().tolist() == VALUES.tolist()
    assert Table(table.folder).failed == {}


@pytest.mark.parametrize("container", ["hdf5", "zarr"])
def test_writers_of_one_shard_at_once_leave_one_whole(tmp_path: Path, container: str) -> None:
    """Twelve of them, each with other rows and another failure: whoever is first holds."""
    table = begin(tmp_path / "cache", container=container)
    writers = [writer(table) for _ in range(12)]
    for number, one in enumerate(writers):
        one.write([0, 1, 2, 3, 4], stored(VALUES + number, "float16"))
        one.failed[number % 5] = f"writer {number}"
    with ThreadPoolExecutor(12) as pool:
        records = list(pool.map(lambda one: one.commit(), writers))
    assert len({record.failed for record in records}) == 1
    number = int(records[0].failed[0].error.split()[1])
    kept = [row for row in range(5) if row != number % 5]
    assert Table(table.folder).tensor().tolist() == (VALUES + number)[kept].tolist()
    assert problems(table) == []
    assert not list(table.folder.rglob(".tmp-*"))


def test_repair_touches_no_file_that_is_sound(tmp_path: Path) -> None:
    """A second repairer would otherwise take away what the first has mended, and might die then."""
    table = begin(tmp_path / "cache", container="zarr")
    record = commit(table, KEYS, VALUES)
    before = files(table)
    paths = [table.folder / file.path for file in record.files]
    kept = {path: path.stat().st_ino for path in paths}
    damaged = table.folder / record.path("rows")
    damaged.write_bytes(b"damaged")
    again = writer(table)
    again.write([0, 1, 2, 3, 4], stored(VALUES, "float16"))
    again.repair(record)
    assert files(table) == before
    kept.pop(damaged)
    assert all(path.stat().st_ino == inode for path, inode in kept.items())


@pytest.mark.parametrize("container", ["hdf5", "zarr"])
def test_repair_makes_a_shard_that_is_gone(tmp_path: Path, container: str) -> None:
    table = begin(tmp_path / "cache", container=container)
    record = commit(table, KEYS, VALUES)
    before = files(table)
    for path in (table.folder / "shards").iterdir():
        remove(path)
    again = writer(table)
    again.write([0, 1, 2, 3, 4], stored(VALUES, "float16"))
    again.repair(record)
    assert files(table) == before
