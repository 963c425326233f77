"""`vqa-cache gc`: what it deletes, and what it never does."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import begin, commit, numbered_keys
from test_vqa_cache_examples import columns, write

import vqa_cache
from vqa_cache.__main__ import main
from vqa_cache.system.durable import Workspace
from vqa_cache.tools.verify import verify


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["gc", *map(str, arguments)])


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache without garbage."""
    root = tmp_path / "cache"
    for container in ("hdf5", "zarr"):
        table = begin(root, tap=container, container=container)
        commit(table, numbered_keys(3), np.zeros((3, 4)))
    write(root / "examples" / "d" / "train", columns(["a?"]))
    return root


def add_garbage(root: Path) -> set[str]:
    """One of each kind; their files."""
    before = files(root)
    write(root / "examples" / "d" / "train", columns(["b?"]))
    superseded = {"examples/d/train/000001.h5", "examples/d/train/000001.json"}
    kept = {"examples/d/train/000002.h5", "examples/d/train/000002.json"}
    for table in vqa_cache.open(root).tables.values():
        record = commit(table, numbered_keys(2, 5), np.ones((2, 4)))
        (table.folder / "records" / f"{record.shard}.json").unlink()
        unfinished = table.folder / "shards" / ".tmp-elsewhere-7-x.zarr" / "rows"
        unfinished.mkdir(parents=True)
        (unfinished / "0").write_bytes(b"1234")
    (root / f".tmp-{socket.gethostname()}-999999999-seal.json").write_bytes(b"x")
    (root / "examples" / "d" / "train" / "000003.h5").write_bytes(b"not recorded")
    return superseded | (files(root) - before - kept)


def test_a_dry_run_tells_and_deletes_nothing(root: Path) -> None:
    assert run(root, "--minutes", 0).stdout == "0 items, 0.0 MB to delete\n"
    add_garbage(root)
    before = files(root)
    result = run(root, "--minutes", 0)
    assert result.exit_code == 0
    assert files(root) == before
    assert result.stdout.count("a shard without a record") == 2
    assert result.stdout.count("unfinished work") == 3
    assert result.stdout.count("superseded by generation 2") == 2
    assert result.stdout.count("columns without a record") == 1
    assert result.stdout.splitlines()[-1].startswith("8 items, ")
    assert "say --yes" in result.stdout


def test_garbage_and_nothing_else_goes(root: Path) -> None:
    garbage = add_garbage(root)
    before = files(root)
    told = json.loads(run(root, "--minutes", 0, "--yes", "--json").stdout)
    assert (told["deleted"], len(told["garbage"])) == (True, 8)
    assert files(root) == before - garbage
    cache = vqa_cache.open(root)
    assert list(verify(cache)) == []
    assert [len(table) for table in cache.tables.values()] == [3, 3]
    assert cache.examples("d/train")["question"].tolist() == ["b?"]
    assert run(root, "--minutes", 0).stdout.startswith("0 items")


def test_what_a_writer_may_be_about_to_record_stays(root: Path) -> None:
    add_garbage(root)
    assert run(root, "--yes").stdout.startswith("0 items")
    hour_ago = time.time() - 3700
    old = next((root / "tables").glob("*/*/*/*/shards/.tmp-*"))
    os.utime(old, (hour_ago, hour_ago))
    assert run(root, "--yes").stdout.startswith("0 items")  # something inside is new
    for path in old.rglob("*"):
        os.utime(path, (hour_ago, hour_ago))
    assert run(root, "--yes").stdout.startswith(f"{old}: unfinished work, 4 bytes\n1 items")


def test_work_of_a_living_process_stays(root: Path) -> None:
    mine = Workspace(root / "seal.json")
    mine.path.write_bytes(b"now")
    assert run(root, "--minutes", 0, "--yes").stdout.startswith("0 items")
    assert mine.path.exists()
    mine.close()


def test_a_shard_whose_record_was_deleted_stays(root: Path) -> None:
    """The seal has the record still."""
    for table in vqa_cache.open(root).tables.values():
        table.seal()
    next((root / "tables").glob("*/*/*/*/records/*.json")).unlink()
    assert run(root, "--minutes", 0, "--yes").stdout.startswith("0 items")


def test_a_shard_with_a_damaged_record_stays(root: Path) -> None:
    """The record may be restored from a copy."""
    record = next((root / "tables").glob("*/*/*/*/records/*.json"))
    record.write_bytes(b"{")
    assert run(root, "--minutes", 0, "--yes").stdout.startswith("0 items")


def test_the_last_valid_generation_stays(root: Path) -> None:
    write(root / "examples" / "d" / "train", columns(["b?"]))
    (root / "examples" / "d" / "train" / "000002.json").write_bytes(b"{")
    assert run(root, "--minutes", 0, "--yes").stdout.startswith("0 items")
    assert (root / "examples" / "d" / "train" / "000001.h5").exists()


@pytest.mark.parametrize("container", ["hdf5", "zarr"])
@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_damaged_record_goes_where_others_say_all_of_it(
    tmp_path: Path, container: str, elsewhere: bool
) -> None:
    """Its keys were planned anew, in another cut, so that nothing will ever mend it."""
    table = begin(tmp_path / "cache", container=container)
    record = commit(table, numbered_keys(3), np.zeros((3, 4)), failed={1: "broken"})
    path = table.folder / "records" / f"{record.shard}.json"
    path.write_bytes(b"\0" * 40)
    count = 3 if elsewhere else 2
    commit(table, numbered_keys(count)[:1], np.zeros((1, 4)))
    commit(table, numbered_keys(count)[1:], np.zeros((count - 1, 4)))
    told = run(tmp_path / "cache", "--yes", "--minutes", 0).stdout
    assert path.exists() != elsewhere
    assert (table.folder / record.path("keys")).exists() != elsewhere
    assert told.count("damaged, and its rows are elsewhere") == (2 if elsewhere else 0)
    assert bool(list(verify(vqa_cache.open(tmp_path / "cache")))) != elsewhere
