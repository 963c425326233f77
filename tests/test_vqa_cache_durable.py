"""Writing that survives a crash."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vqa_cache.system import durable


def killed_writer(final: Path, *, before_the_lock: bool = False) -> Path:
    """The workspace of a process that was killed amid writing."""
    made = "os.mkdir(sys.argv[1] + '/.tmp-' + 'ab' * 16)"
    if not before_the_lock:
        made = "Workspace(Path(sys.argv[1], sys.argv[2])).path.write_text('half')"
    script = f"""
import os, signal, sys
from pathlib import Path
from vqa_cache.system.durable import Workspace
keep = {made}
os.kill(os.getpid(), signal.SIGKILL)
"""
    before = set(final.parent.iterdir())
    subprocess.run([sys.executable, "-c", script, final.parent, final.name], check=False)
    [workspace] = set(final.parent.iterdir()) - before
    return workspace


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
    killed_writer(tmp_path / "a.h5")
    killed_writer(tmp_path / "b.h5", before_the_lock=True)
    (tmp_path / "table").mkdir()
    killed_writer(tmp_path / "table" / "c.h5")
    mine = durable.Workspace(tmp_path / "mine.h5")
    mine.path.write_text("x")
    kept = [tmp_path / ".tmp-of-an-earlier-version", tmp_path / "finished.h5"]
    for path in kept:
        path.write_text("x")
    durable.remove_stale_temporaries(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*kept, mine.path.parent, tmp_path / "table"])
    assert list((tmp_path / "table").iterdir()) == []
    assert mine.path.read_text() == "x"
    mine.close()
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / "table"])


def test_writers_of_one_name_on_hosts_of_one_name_have_a_folder_each(tmp_path: Path) -> None:
    """Two containers may have one host name, and process 1 each."""
    final = tmp_path / "rows.h5"
    first, second = durable.Workspace(final), durable.Workspace(final)
    assert first.path != second.path
    for workspace in (first, second):
        assert durable.is_temporary(workspace.path.parent)
        assert durable.has_writer(workspace.path.parent)
        for part in (socket.gethostname(), str(os.getpid())):
            assert part not in workspace.path.parent.name
    script = "import sys; from pathlib import Path; from vqa_cache.system import durable as d; "
    script += "d.remove_stale_temporaries(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True)
    assert len(list(tmp_path.iterdir())) == 2
    first.close()
    assert list(tmp_path.iterdir()) == [second.path.parent]
    second.close()


def test_a_workspace_that_was_taken_for_left_over_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the making of the folder and its lock, another may remove it."""
    real, tried = durable._take, []

    def removed_first(folder: Path) -> int | None:
        tried.append(folder)
        if len(tried) == 1:
            durable.remove_stale_temporaries(tmp_path)
        return real(folder)

    monkeypatch.setattr(durable, "_take", removed_first)
    workspace = durable.Workspace(tmp_path / "x")
    assert not tried[0].exists()
    assert list(tmp_path.iterdir()) == [workspace.path.parent]
    workspace.close()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
def test_without_locks_nothing_counts_as_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    stale = killed_writer(tmp_path / "a.h5")

    def none(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    durable.write_file(tmp_path / "seal.json", b"whole")
    durable.remove_stale_temporaries(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([stale, tmp_path / "seal.json"])


def test_new_folders_are_synced_from_the_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()  # by a writer that died before it synced
    synced: list[str] = []
    sync = durable.sync_folder
    monkeypatch.setattr(
        durable,
        "sync_folder",
        lambda path: (synced.append(os.path.relpath(path, tmp_path)), sync(path)),
    )
    durable.make_folder(tmp_path / "a" / "b" / "c", tmp_path)
    assert synced == ["a/b", "a", "."]
    assert (tmp_path / "a" / "b" / "c").is_dir()
    monkeypatch.chdir(tmp_path)
    durable.make_folder(Path("d"), Path("."))
    assert synced[3:] == ["."]


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "CACHE.json"
    path.write_text("{}")
    order: list[str] = []

    def second() -> None:
        with durable.locked(path):
            order.append("second")

    with durable.locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_block_that_raises_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def half() -> None:
        with durable.Workspace(tmp_path / "x") as path:
            path.write_text("half")
            raise error

    with pytest.raises(type(error)):
        half()
    assert list(tmp_path.iterdir()) == []


def test_names_that_readers_ignore(tmp_path: Path) -> None:
    with durable.Workspace(tmp_path / "x.h5") as path:
        assert path.parent.parent == tmp_path
        assert path.name == "x.h5"
        assert durable.is_temporary(path.parent)
    assert not durable.is_temporary(tmp_path / "x.h5")
    assert not durable.is_temporary(tmp_path / ".tmp-folder" / "x.h5")
