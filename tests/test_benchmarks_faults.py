"""The short form of `python -m benchmarks faults`: stage 1 killed, out of power and out of disk,
its caches damaged and written by several, ends as if nothing had happened.

The model of a disk that loses power is tested too: it has to find what is written carelessly.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults import failures, kills, power_loss, sources, writers
from benchmarks.faults.command import PARTS, Counts
from benchmarks.faults.corruption import Patient
from benchmarks.faults.damage import WAYS, Damage
from benchmarks.faults.ground import Ground
from benchmarks.faults.power_loss import Disk
from benchmarks.faults.scenario import CACHE, Finding, Scenario, kept, wrong_rows
from benchmarks.measuring import namespaces
from benchmarks.measuring.file_calls import FileCalls, kind_of
from benchmarks.measuring.warm import Warm

COPIES = ("copy", "convert")


@pytest.fixture(scope="module")
def ground(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(warm, tmp_path_factory.mktemp("faults") / "ground")


@pytest.fixture(scope="module")
def works(ground: Ground) -> dict[str, Scenario]:
    names = ("plain", "zarr", "extend", "repair", "withdraw", *COPIES)
    return {one.name: one for one in ground.scenarios(names)}


def told(findings: list[Finding]) -> list[str]:
    return [one.what for one in findings]


@pytest.mark.parametrize("name", ["plain", "zarr", "extend", "repair", "withdraw", *COPIES])
def test_a_kill_at_any_operation_changes_nothing(
    ground: Ground, works: dict[str, Scenario], name: str
) -> None:
    work = works[name]
    draw = random.Random(name)
    for number in draw.sample(range(len(work.operations)), 2):
        killed = kills.kill(ground, kills.Kill(work, number, 0.0))
        assert told(killed.findings) == []


@pytest.mark.parametrize("name", ["zarr", "extend", "withdraw", *COPIES])
def test_a_loss_of_power_changes_nothing(
    ground: Ground, works: dict[str, Scenario], name: str
) -> None:
    losses = power_loss.losses(ground, works[name], 3, random.Random(name))
    assert losses[0].finished  # what is there after the end is tried in any case
    for loss in losses:
        assert told(power_loss.check(ground, loss)) == []


def test_a_disk_that_is_full_or_fails_changes_nothing(
    ground: Ground, works: dict[str, Scenario]
) -> None:
    for failure in failures.schedule([works["zarr"], works["copy"]], 4, random.Random(4)):
        assert told(failures.fail(ground, failure)) == []


def test_several_writers_at_once_write_what_one_does(
    ground: Ground, works: dict[str, Scenario]
) -> None:
    own = 1 if namespaces.why_not() is None else 0
    rounds = writers.schedule([works["zarr"]], 2, random.Random(2), namespaces=own)
    for one in rounds:
        assert told(writers.write_together(ground, one).findings) == []


@pytest.mark.parametrize("name", list(sources.CHANGES))
def test_a_dataset_that_changes_between_two_runs(ground: Ground, name: str) -> None:
    assert told(sources.change(ground, sources.Change(name, 3))) == []


def test_damage_is_told_everywhere_and_mended(ground: Ground) -> None:
    """Verify tells it, readers, training and export refuse or are right, stage 1 mends it."""
    patient = Patient(ground)
    ways = {
        r"shards/[0-9a-f]+\.h5": "with a bit flipped",
        r"withdrawn/": "removed",
        r"thumbnails/": "truncated",
        r"records/": "removed with its sisters",
    }
    for number, (which, way) in enumerate(ways.items()):
        path = next(name for name in sorted(patient.files) if re.search(which, name))
        suffered = patient.suffer(number, Damage(way, path, 5))
        assert (suffered.tried, suffered.mended) == (True, True)
        assert told(suffered.findings) == []


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
