"""Writing that survives a crash."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vqa_cache.system import durable


def dead_process() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "seal.json"
    durable.write_file(path, b"old")

    def broken(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="no"):
        durable.write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["seal.json"]


def test_creating_never_replaces(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    assert durable.create_file(path, b"first")
    assert not durable.create_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["table.json"]


def test_everything_is_synced_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def noting_sync(descriptor: int) -> None:
        done.append("sync " + os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    def noting_replace(source: Path, target: Path) -> None:
        done.append(f"name {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(os, "replace", noting_replace)
    shard = tmp_path / ".tmp-shard"
    (shard / "rows" / "c").mkdir(parents=True)
    (shard / "zarr.json").write_text("{}")
    (shard / "rows" / "c" / "0").write_text("rows")
    durable.publish(shard, tmp_path / "shard.zarr")
    name = done.index("name shard.zarr")
    assert {"sync 0", "sync c", "sync rows", "sync zarr.json", "sync .tmp-shard"} == set(
        done[:name]
    )
    assert done[name + 1 :] == [f"sync {tmp_path.name}"]


def test_a_folder_in_the_way_is_replaced(tmp_path: Path) -> None:
    for name, text in ((".tmp-new", "new"), ("shard.zarr", "left over")):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "0").write_text(text)
    durable.publish(tmp_path / ".tmp-new", tmp_path / "shard.zarr")
    assert (tmp_path / "shard.zarr" / "inner" / "0").read_text() == "new"
    assert os.listdir(tmp_path) == ["shard.zarr"]


def test_temporaries_of_the_dead_go_and_of_the_living_stay(tmp_path: Path) -> None:
    host, dead = socket.gethostname(), dead_process()
    stale_file = tmp_path / f".tmp-{host}-{dead}-a.h5"
    stale_file.write_text("x")
    stale_folder = tmp_path / f".tmp-{host}-{dead}-b.zarr"
    (stale_folder / "rows").mkdir(parents=True)
    kept = [
        tmp_path / f".tmp-{host}-{os.getppid()}-a.h5",
        tmp_path / f".tmp-another.{host}-{dead}-a.h5",
        durable.temporary_path(tmp_path / "mine.h5"),
        tmp_path / "finished.h5",
    ]
    for path in kept:
        path.write_text("x")
    durable.remove_stale_temporaries(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_block_that_raises_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / ".tmp-x"
    path.write_text("half")
    with pytest.raises(type(error)), durable.removed_on_error(path):
        raise error
    assert not path.exists()
    with durable.removed_on_error(path):
        path.write_text("whole")
    assert path.exists()


def test_names_that_readers_ignore(tmp_path: Path) -> None:
    temporary = durable.temporary_path(tmp_path / "x.h5")
    assert temporary.parent == tmp_path
    assert str(os.getpid()) in temporary.name
    assert durable.is_temporary(temporary)
    assert not durable.is_temporary(tmp_path / "x.h5")
    assert not durable.is_temporary(tmp_path / ".tmp-folder" / "x.h5")
