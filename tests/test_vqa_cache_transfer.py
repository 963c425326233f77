"""`vqa-cache copy`: bytes and identities kept, containers converted, damage never copied."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import begin, commit, numbered_keys
from test_vqa_cache_examples import columns, write

import vqa_cache
from vqa_cache.__main__ import main
from vqa_cache.contents import list_contents, picture_entry
from vqa_cache.table import Table
from vqa_cache.tools.verify import verify

OTHER = {"hdf5": "zarr", "zarr": "hdf5"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["copy", *map(str, arguments)])


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def fill(root: Path, container: str, **how: Any) -> None:
    """Dense, ragged and text tables with failures, a split, a thumbnail, a withdrawal."""
    draw = np.random.default_rng(0)
    dense = begin(root, tap="dense", container=container, **how)
    commit(dense, numbered_keys(70), draw.normal(size=(70, 4)), failed={1: "no", 69: "bad"})
    commit(dense, numbered_keys(2, 90), draw.normal(size=(2, 4)), failed={0: "no", 1: "no"})
    ragged = begin(root, tap="ragged", container=container, ragged=True, modality="text", **how)
    lengths = [3, 0, 1, 5]
    values = [draw.normal(size=(n, 4)) for n in lengths]
    commit(ragged, ["a", "", "größe", "d"], values, failed={3: "long"})
    write(root / "examples" / "d" / "train", columns(["a?"]))
    write(root / "examples" / "d" / "train", columns(["b?", "c?"]))
    (root / "thumbnails").mkdir()
    (root / "thumbnails" / f"{'0' * 32}.jpg").write_bytes(b"jpeg")
    list_contents(root, splits=["d/train"], pictures={"0" * 32: picture_entry(b"jpeg")})
    for table in vqa_cache.open(root).tables.values():
        table.seal()
    CliRunner().invoke(main, ["withdraw", "ragged", "--cache", str(root), "--text", "a"])


@pytest.mark.parametrize("container", ["hdf5", "zarr"])
def test_a_copy_has_the_same_bytes(tmp_path: Path, container: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    fill(source, container)
    result = run(source, target)
    assert result.exit_code == 0, result.output
    assert "d/train: 1 copied, 0 were there" in result.stdout
    before = files(source)
    superseded = {"examples/d/train/000001.h5", "examples/d/train/000001.json"}
    assert files(target) == {n: b for n, b in before.items() if n not in superseded}
    assert run(source, target).stdout.count("0 copied") == 3
    assert files(target).keys() == before.keys() - superseded


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
@pytest.mark.parametrize("container", ["hdf5", "zarr"])
def test_conversion_keeps_rows_and_names(tmp_path: Path, container: str, dtype: str) -> None:
    source, target, back = (tmp_path / name for name in ("source", "target", "back"))
    fill(source, container, dtype=dtype)
    assert run(source, target, "--format", OTHER[container]).exit_code == 0
    assert list(verify(vqa_cache.open(target))) == []
    old, new = vqa_cache.open(source).tables, vqa_cache.open(target).tables
    assert list(old) == list(new)
    for name in old:
        assert new[name].id == old[name].id
        assert new[name].record.container == OTHER[container]
        assert new[name].failed == old[name].failed
        np.testing.assert_array_equal(new[name].keys, old[name].keys)
        for one, other in zip(old[name].shards, new[name].shards, strict=True):
            assert one.planned == other.planned
            for array, told in one.arrays.items():
                assert other.arrays[array].blocks == told.blocks
    ragged = new["ragged"]
    assert ragged.texts() == ["", "größe"]
    assert ragged.lengths.tolist() == [0, 1]
    assert ragged["größe"].tolist() == old["ragged"]["größe"].tolist()
    # and back again: the same files as at first
    assert run(target, back, "--format", container).exit_code == 0
    found = files(back)
    assert {n: b for n, b in files(source).items() if n in found} == found


def test_some_tables(tmp_path: Path) -> None:
    fill(tmp_path / "source", "hdf5")
    result = run(tmp_path / "source", tmp_path / "target", "--tables", "dense", "--json")
    told = json.loads(result.stdout)
    assert [item["name"].split("/")[0] for item in told["copied"]] == ["image", "d"]
    assert told["thumbnails"] == 1
    assert len(vqa_cache.open(tmp_path / "target").tables) == 1
    result = run(tmp_path / "source", tmp_path / "target", "--tables", "vit")
    assert result.exit_code == 1
    assert "no table named 'vit'" in result.stderr


@pytest.mark.parametrize("container", [None, "zarr"])
def test_damage_is_never_copied(tmp_path: Path, container: str | None) -> None:
    source = tmp_path / "source"
    fill(source, "hdf5")
    shard = max(source.glob("tables/image/*/*/*/shards/*"), key=lambda path: path.stat().st_size)
    content = bytearray(shard.read_bytes())
    content[5000] ^= 1
    shard.write_bytes(content)
    how = ("--format", container) if container else ()
    result = run(source, tmp_path / "target", *how)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {shard}: its bytes differ")
    assert "--repair" in result.stderr
    target = vqa_cache.open(tmp_path / "target")
    assert [problem for problem in verify(target) if shard.stem in problem] == []
    assert not any(shard.stem in name for name in files(tmp_path / "target"))


def test_an_interrupted_copy_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, whole = tmp_path / "source", tmp_path / "whole"
    fill(source, "zarr")
    run(source, whole)
    replace, target = os.replace, tmp_path / "target"
    for step in range(1000):
        left = [step]

        def dying(one: Path, other: Path, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            replace(one, other)

        monkeypatch.setattr(os, "replace", dying)
        stopped = run(source, target).exit_code != 0
        monkeypatch.undo()
        if not stopped:
            break
    assert step > 3
    assert files(target) == files(whole)


def test_another_table_or_split_is_not_overwritten(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    fill(source, "hdf5")
    begin(target, tap="dense", container="zarr")
    result = run(source, target, "--tables", "dense")
    assert result.exit_code == 1
    assert "has it with another container" in result.stderr
    assert run(source, target, "--tables", "dense", "--format", "zarr").exit_code == 0
    write(source / "examples" / "d" / "train", columns(["x?"]))
    result = run(source, target, "--tables", "dense", "--format", "zarr")
    assert result.exit_code == 1
    assert "split d/train" in result.stderr
    assert "(2 examples, here 1); copy into another cache" in result.stderr
    result = run(source, source)
    assert result.exit_code == 1
    assert "is the source itself" in result.stderr


def test_a_copy_of_many_rows_at_once(tmp_path: Path) -> None:
    """More rows than are copied at once, with gaps between them."""
    table = begin(tmp_path / "source", ragged=True)
    values = [np.full((n % 4, 4), n) for n in range(200)]
    commit(table, numbered_keys(200), values, failed={5: "no", 130: "no"})
    run(tmp_path / "source", tmp_path / "target", "--format", "zarr")
    [copied] = vqa_cache.open(tmp_path / "target").tables.values()
    for number, key in enumerate(numbered_keys(200)):
        if number not in (5, 130):
            assert copied[key].tolist() == values[number].tolist()
    assert Table(copied.folder).lengths.sum() == sum(map(len, values)) - 1 - 2
