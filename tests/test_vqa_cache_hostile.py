"""A cache, a link or a file that means harm: nothing outside is read, written or deleted."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import begin, commit, numbered_keys
from test_vqa_cache_examples import columns, write
from test_vqa_cache_records import redone
from test_vqa_cache_transfer import files

import vqa_cache
from vqa_cache.__main__ import main
from vqa_cache.contents import list_contents, picture_entry
from vqa_cache.memo import Memo, file_stat, is_settled
from vqa_cache.tools.verify import verify


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def one_line(result: Result) -> str:
    """The one line of a user's error."""
    assert result.exit_code == 1, result.output
    [line] = result.stderr.splitlines()
    return line


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A cache of one Zarr table, a split and a thumbnail."""
    root = tmp_path / "source"
    table = begin(root, container="zarr")
    commit(table, numbered_keys(3), np.ones((3, 4)))
    write(root / "examples" / "d" / "train", columns(["a?"]))
    (root / "thumbnails").mkdir()
    pictures = {key.hex(): picture_entry(b"jpeg") for key in numbered_keys(2)}
    for key in pictures:
        (root / "thumbnails" / f"{key}.jpg").write_bytes(b"jpeg")
    list_contents(root, splits=["d/train"], pictures=pictures)
    return root


# ---------------------------------------------------------------- copies


def rewrite(path: Path, **changes: Any) -> None:
    path.write_bytes(redone(path.read_bytes(), **changes))


def absolute_path(root: Path) -> None:
    rewrite(next(root.rglob("records/*.json")), files__0__path=str(root.parent / "outside"))


def path_upwards(root: Path) -> None:
    record = next(root.rglob("records/*.json"))
    rewrite(record, files__0__path=f"shards/{record.stem}.zarr/../../../../outside")


def table_name(root: Path) -> None:
    rewrite(next(root.rglob("table.json")), name="../../../outside")


def shard_name(root: Path) -> None:
    rewrite(next(root.rglob("records/*.json")), shard="../../../../outside")


def split_name(root: Path) -> None:
    rewrite(next(root.rglob("000001.json")), split="../../outside")


@pytest.mark.parametrize(
    "attack", [absolute_path, path_upwards, table_name, shard_name, split_name]
)
def test_a_copy_writes_nothing_outside_its_target(
    tmp_path: Path, source: Path, attack: Callable[[Path], None]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"mine")
    attack(source)
    run("copy", source, tmp_path / "inside" / "target")
    assert files(outside) == {"precious": b"mine"}
    assert {path.name for path in tmp_path.iterdir()} == {"source", "outside", "inside"}
    assert {path.name for path in (tmp_path / "inside").iterdir()} == {"target"}
    opened = vqa_cache.open(tmp_path / "inside" / "target")
    assert list(verify(opened)) == []
    assert list(verify(vqa_cache.open(source))) != []  # what is wrong there is told


def test_a_copy_follows_no_link_of_a_thumbnail(tmp_path: Path, source: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"not for you")
    name = f"{'f' * 32}.jpg"
    (source / "thumbnails" / name).symlink_to(secret)
    (source / "thumbnails" / "notes.jpg").write_bytes(b"no picture of an image")
    assert run("copy", source, tmp_path / "target").exit_code == 0
    assert len(list((tmp_path / "target" / "thumbnails").iterdir())) == 2


def test_an_image_withdrawn_on_either_side_has_no_thumbnail(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "target"
    run("copy", source, target)
    first, second = (key.hex() for key in numbered_keys(2))
    for root, key in ((target, first), (source, second)):
        (tmp_path / "keys").write_text(key)
        run("withdraw", "image/", "--cache", root, "--keys", tmp_path / "keys")
    assert (source / "thumbnails" / f"{first}.jpg").exists()
    assert (target / "thumbnails" / f"{second}.jpg").exists()
    assert run("copy", source, target).exit_code == 0
    assert list((target / "thumbnails").iterdir()) == []
    [table] = vqa_cache.open(target).tables.values()
    assert len(table) == 1


@pytest.mark.parametrize("command", ["copy", "import", "withdraw"])
def test_what_a_killed_command_left_is_gone_after_the_next(
    tmp_path: Path, source: Path, command: str
) -> None:
    left = source / "tables" / f".tmp-{'0f' * 16}"
    left.mkdir()
    np.save(tmp_path / "rows.npy", np.ones((1, 2), np.float32))
    (tmp_path / "keys").write_text("0" * 32)
    arguments = {
        "copy": [tmp_path / "other", source],
        "import": f"npy {tmp_path}/rows.npy --encoder e --key-by key --ids {tmp_path}/keys "
        f"--cache {source}".split(),
        "withdraw": ["image/", "--cache", source, "--keys", tmp_path / "keys"],
    }
    begin(tmp_path / "other", tap="other")
    assert run(command, *arguments[command]).exit_code == 0
    assert not left.exists()


# ---------------------------------------------------------------- links, and what is not ours


def test_gc_deletes_nothing_behind_a_link_and_nothing_of_another_name(
    tmp_path: Path, source: Path
) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / f"{'0' * 32}.h5").write_bytes(b"thesis")
    (documents / "000001.h5").write_bytes(b"thesis")
    [table] = vqa_cache.open(source).tables.values()
    other = begin(source, tap="other")
    (other.folder / "shards").rmdir()
    (other.folder / "shards").symlink_to(documents)
    (source / "examples" / "d" / "val").symlink_to(documents)
    (table.folder / "shards" / "notes.txt").write_bytes(b"why")
    (table.folder / "shards" / f"{'1' * 32}.h5").symlink_to(documents / "000001.h5")
    (source / "examples" / "d" / "train" / "2024.report.txt").write_bytes(b"why")
    before = files(tmp_path)
    result = run("gc", source, "--yes", "--minutes", 0)
    assert result.stdout == "0 items, 0.0 MB deleted\n"
    assert files(tmp_path) == before


def test_a_memo_that_is_a_link_is_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.sqlite"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE mine (x TEXT)")
    connection.commit()
    connection.close()
    before = foreign.read_bytes()
    (tmp_path / "memo.sqlite").symlink_to(foreign)
    memo = Memo(tmp_path / "memo.sqlite")
    memo.remember_table("evidence", "ab" * 16)
    assert memo.table_id("evidence") == "ab" * 16
    memo.close()
    assert foreign.read_bytes() == before


@pytest.mark.parametrize("kind", ["npy", "parquet", "safetensors"])
def test_an_export_replaces_nothing(tmp_path: Path, source: Path, kind: str) -> None:
    [table] = vqa_cache.open(source).tables.values()
    before = files(source)
    (tmp_path / "out" / f"rows.{kind}").mkdir(parents=True)
    (tmp_path / "out" / f"rows.{kind}" / "mine").write_bytes(b"x")
    told = one_line(run("export", "image/", tmp_path / "out", f"--{kind}", "--cache", source))
    assert told.endswith(f"rows.{kind}: is there already; delete it, or name another folder")
    assert files(tmp_path / "out") == {f"rows.{kind}/mine": b"x"}
    run("export", "image/", table.folder, "--npy", "--cache", source)
    assert files(source) == before  # its own table.json is not overwritten


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../secret", "", "a\nb"])
def test_an_id_names_nothing_outside_the_images(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"not for you")
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "rows.npy", np.ones((1, 2), np.float32))
    (tmp_path / "ids.json").write_text(json.dumps([name]))
    told = one_line(
        run("import", "npy", tmp_path / "rows.npy", "--encoder", "e", "--ids",
            tmp_path / "ids.json", "--images", tmp_path / "images", "--cache", tmp_path / "cache")
    )  # fmt: skip
    assert f"id {name!r}: is no path under {tmp_path / 'images'}" in told


# ---------------------------------------------------------------- imports


def imported(kind: str, path: Path, *more: object) -> Result:
    ids = path.parent / "ids"
    ids.write_text("".join(f"{n:032x}\n" for n in range(2)))
    return run("import", kind, path, "--encoder", "e", "--key-by", "key", "--ids", ids,
               "--cache", path.parent / "cache", *more)  # fmt: skip


def external_link(path: Path) -> None:
    with h5py.File(path.with_name("other.h5"), "w") as file:
        file["features"] = np.ones((2, 3, 4), np.float32)
    with h5py.File(path, "w") as file:
        file["features"] = h5py.ExternalLink("other.h5", "features")


def soft_link(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a"] = h5py.ExternalLink("/etc/passwd", "x")
        file["features"] = h5py.SoftLink("/a")


def raw_file(path: Path) -> None:
    raw = path.with_name("raw")
    raw.write_bytes(b"\0" * 96)
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (2, 3, 4), "f4", external=[(str(raw), 0, 96)])


def missing_virtual_source(path: Path) -> None:
    layout = h5py.VirtualLayout((2, 3, 4), "f4")
    layout[:] = h5py.VirtualSource("gone.h5", "features", (2, 3, 4))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("features", layout)


def group(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("features")


@pytest.mark.parametrize(
    "attack", [external_link, soft_link, raw_file, missing_virtual_source, group]
)
def test_an_hdf5_import_reads_its_own_file_alone(
    tmp_path: Path, attack: Callable[[Path], None]
) -> None:
    path = tmp_path / "features.h5"
    attack(path)
    told = one_line(imported("hdf5", path))
    assert "features is no array inside this file" in told


def zero_dimensional_boxes(folder: Path) -> tuple[str, Path]:
    np.savez(folder / "0.npz", features=np.ones((2, 3), np.float32), boxes=np.float32(1))
    np.savez(folder / "1.npz", features=np.ones((2, 3), np.float32), boxes=np.float32(1))
    return "npz", folder


def flat_boxes(folder: Path) -> tuple[str, Path]:
    with h5py.File(folder / "x.h5", "w") as file:
        file["features"] = np.ones((2, 3, 4), np.float32)
        file["boxes"] = np.ones(2, np.float32)
    return "hdf5", folder / "x.h5"


def broken_zip(folder: Path) -> tuple[str, Path]:
    for name in "01":
        np.savez_compressed(folder / f"{name}.npz", features=np.arange(600.0).reshape(20, 30))
        content = bytearray((folder / f"{name}.npz").read_bytes())
        content[120:200] = b"\xff" * 80
        (folder / f"{name}.npz").write_bytes(content)
    return "npz", folder


def float8(folder: Path) -> tuple[str, Path]:
    torch.save(torch.ones(2, 4).to(torch.float8_e4m3fn), folder / "x.pt")
    return "pt", folder / "x.pt"


def sparse(folder: Path) -> tuple[str, Path]:
    torch.save(torch.eye(2).to_sparse(), folder / "x.pt")
    return "pt", folder / "x.pt"


def sparse_rows(folder: Path) -> tuple[str, Path]:
    torch.save([torch.eye(2).to_sparse(), torch.eye(2).to_sparse()], folder / "x.pt")
    return "pt", folder / "x.pt"


def alone(folder: Path) -> tuple[str, Path]:
    np.save(folder / "x.npy", np.ones(2, np.float32))
    return "npy", folder / "x.npy"


def giant(folder: Path) -> tuple[str, Path]:
    np.save(folder / "x.npy", np.ones((2, 2), np.float32))
    content = (folder / "x.npy").read_bytes().replace(b"(2, 2)", b"(2,9999999999999999)"[:6])
    (folder / "x.npy").write_bytes(content.replace(b"(2,999", b"(9999,"))
    return "npy", folder / "x.npy"


@pytest.mark.parametrize(
    "make",
    [zero_dimensional_boxes, flat_boxes, broken_zip, float8, sparse, sparse_rows, alone, giant],
)
def test_a_broken_file_of_another_program_is_one_line(
    tmp_path: Path, make: Callable[[Path], tuple[str, Path]]
) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    kind, path = make(folder)
    told = one_line(imported(kind, path))
    assert told.startswith(f"error: {folder}")
    assert "Traceback" not in told


# ---------------------------------------------------------------- memo


def test_every_flipped_bit_of_the_memo_costs_time_alone(tmp_path: Path) -> None:
    path = tmp_path / "memo.sqlite"
    memo = Memo(path)
    stat = (10, 20, 30, 40)
    images = {f"/images/{n}.png": (stat, bytes([n]) * 16) for n in range(8)}
    memo.remember_images((name, *rest) for name, rest in images.items())
    memo.remember_table("evidence", "ab" * 16)
    memo.close()
    whole = path.read_bytes()
    for place in range(0, len(whole), 61):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        memo = Memo(path)
        found = memo.image_keys()
        assert found.items() <= images.items(), place
        assert memo.table_id("evidence") in (None, "ab" * 16)
        memo.close()


def test_new_content_under_an_old_time_is_another_file(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1))
    before = file_stat(path)
    with path.open("r+b") as file:
        file.write(b"two")
    os.utime(path, ns=(1, 1))
    after = file_stat(path)
    assert (after[0], after[1], after[3]) == (before[0], before[1], before[3])
    assert after != before or not is_settled(before)
