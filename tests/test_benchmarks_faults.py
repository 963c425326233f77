"""The short form of `python -m benchmarks faults`: stage 1 killed, out of power and out of disk,
its caches damaged and written by several, ends as if nothing had happened.

The model of a disk that loses power is tested too: it has to find what is written carelessly.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.command import PARTS, Counts
from benchmarks.faults.damage import WAYS, Damage
from benchmarks.faults.ground import Ground
from benchmarks.faults.power_loss import Disk
from benchmarks.faults.scenario import CACHE, kept, wrong_rows
from benchmarks.measuring.file_calls import FileCalls, kind_of
from benchmarks.measuring.warm import Warm

COPIES = ("copy", "convert")


@pytest.fixture(scope="module")
def ground(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(warm, tmp_path_factory.mktemp("faults") / "ground")


# ---------------------------------------------------------------- the instruments themselves


def test_the_reader_of_the_campaign_sees_wrong_and_lost_rows(ground: Ground) -> None:
    cache = ground.done / CACHE
    right = dict(ground.right)
    assert wrong_rows(cache, right, {}, "here") == []
    key = next(iter(right))
    [wrong] = wrong_rows(cache, right | {key: b"other"}, {}, "here")
    assert (wrong.kind, wrong.count) == ("rows_wrong", 1)
    [lost] = wrong_rows(cache, right, {("no table", b"no key"): b""}, "here")
    assert (lost.kind, lost.count) == ("rows_lost", 1)


def write_and_record(folder: Path, work: Any) -> Disk:
    """What the disk may hold after some calls in a process of its own."""
    root, record = folder / "root", folder / "record"
    root.mkdir()
    record.mkdir()
    child = os.fork()
    if child == 0:
        try:
            FileCalls({"watch": str(root), "record": str(record)}, folder).install()
            work(root)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return Disk(record)


def _write(path: Path, content: bytes, *, sync: bool) -> None:
    path.write_bytes(content)
    if sync:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def after_the_end(disk: Disk) -> Iterator[dict[str, bytes | None]]:
    for _ in disk.moments():
        pass
    draw = random.Random(0)
    yield disk.synced()
    for _ in range(40):
        yield disk.drawn(draw)


@pytest.mark.parametrize(
    ("file", "folder", "survives"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_the_model_of_a_disk_wants_both_syncs(
    tmp_path: Path, file: bool, folder: bool, survives: bool
) -> None:
    def work(root: Path) -> None:
        _write(root / "new", b"x" * 2000, sync=file)
        os.rename(root / "new", root / "final")
        if folder:
            _sync(root)

    states = list(after_the_end(write_and_record(tmp_path, work)))
    whole = [state.get("final") == b"x" * 2000 for state in states]
    assert all(whole) is survives
    assert any(whole)


def test_the_model_of_a_disk_may_lose_a_folder_that_its_parent_does_not_know(
    tmp_path: Path,
) -> None:
    def work(root: Path) -> None:
        os.mkdir(root / "inner")
        _write(root / "inner" / "file", b"x", sync=True)
        _sync(root / "inner")

    assert next(after_the_end(write_and_record(tmp_path, work))) == {}


def test_every_way_of_damage_changes_a_file(ground: Ground, tmp_path: Path) -> None:
    changed = set()
    for way in WAYS:
        for name in sorted(kept(ground.done / CACHE)):
            if way in changed:
                break
            cache = shutil.copytree(ground.done / CACHE, tmp_path / "copy")
            before = kept(cache)
            if Damage(way, name, 1).inflict(cache, cache):
                assert kept(cache) != before
                changed.add(way)
            shutil.rmtree(cache)
    assert changed == set(WAYS) - {"joined by a foreign one"}  # here no other cache is


def test_equal_steps_of_two_commits_are_told_alike() -> None:
    table = "tables/image/hf.vit/cls/fp16@0123abcd"
    assert kind_of(f"cache/{table}/records/{'a' * 32}.json") == "records/*.json"
    assert kind_of(f"{table}/shards/.tmp-{'b' * 32}/{'a' * 32}.h5") == "shards/.tmp-*"
    assert kind_of("cache/examples/vqa2/train/000001.h5") == "examples/*.h5"


def test_the_campaign_knows_every_part_and_its_share() -> None:
    assert set(PARTS) >= {"kills", "ray", "power", "corruption", "writers", "overheads"}
    few = Counts().share(0.001)
    assert min(vars(few).values()) == 1
    assert Counts().power_losses >= 3000
    assert Counts().kills >= 700
