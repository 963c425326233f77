"""Verification finds one changed byte anywhere and names the file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import begin, commit, numbered_keys
from test_vqa_cache_examples import columns, write

import vqa_cache
from vqa_cache.identity import add_spec
from vqa_cache.spec import parse_spec
from vqa_cache.tools.verify import verify


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with an HDF5 table, a Zarr table and a split."""
    root = tmp_path_factory.mktemp("verify") / "cache"
    for number, container in enumerate(("hdf5", "zarr")):
        table = begin(root, container=container, modality=("image", "text")[number])
        items = [["a", "bc"], ["d"]] if number else [numbered_keys(2), numbered_keys(1, 9)]
        for part in items:
            commit(table, part, np.full((len(part), 4), 3.0))
        add_spec(table, parse_spec("timm:made-up:tap=pooled"))
        table.seal()
    write(root / "examples" / "d" / "train", columns(["a?", "b?"]))
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(sound, tmp_path / "cache")


def problems(root: Path, *, content: bool = True) -> list[str]:
    return list(verify(vqa_cache.open(root), content=content))


def files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name != "CACHE.json":
            yield path


def test_a_sound_cache_has_no_problem(root: Path) -> None:
    assert problems(root) == problems(root, content=False) == []


def kind_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root).parts
    kinds = {"records", "shards", "specs", "examples"}
    return next((part for part in parts if part in kinds), path.name)


@pytest.mark.parametrize(
    "kind", ["records", "shards", "specs", "examples", "seal.json", "table.json"]
)
def test_one_flipped_byte_is_found_and_its_file_named(root: Path, kind: str) -> None:
    draw = np.random.default_rng(0)
    paths = [path for path in files(root) if kind_of(path, root) == kind]
    assert paths
    missed = []
    for path in paths:
        good = path.read_bytes()
        for place in {0, len(good) // 2, *draw.integers(0, len(good), 4).tolist()}:
            changed = bytearray(good)
            changed[place] ^= 0x10
            path.write_bytes(changed)
            if not any(str(path) in line for line in problems(root)):
                missed.append((str(path.relative_to(root)), place))
        path.write_bytes(good)
    assert missed == []
    assert problems(root) == []


def test_every_byte_of_a_small_shard_counts(root: Path) -> None:
    path = next(path for path in files(root) if path.match("rows/c/0/0"))
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        assert problems(root) == [f"{path}: its bytes differ from the record's digest"]
        assert problems(root, content=False) == []


def test_sizes_are_checked_quickly(root: Path) -> None:
    path = next(path for path in files(root) if path.suffix == ".h5")
    path.write_bytes(path.read_bytes()[:-1])
    [problem] = problems(root, content=False)
    assert str(path) in problem
    assert "bytes, expected" in problem


def test_every_missing_file_is_found(root: Path) -> None:
    for path in list(files(root)):
        if kind_of(path, root) in ("specs", "seal.json") or path.match("examples/*/*/*.json"):
            continue  # what nothing else refers to
        good = path.read_bytes()
        path.unlink()
        found = problems(root)
        if path.name == "table.json":
            assert any(str(path.parent) in line for line in found), path
        elif kind_of(path, root) == "records":
            assert any(f"shards/{path.stem}" in line for line in found), path
        else:
            assert any(str(path) in line for line in found), path
        path.write_bytes(good)


@pytest.mark.parametrize("part", ["shards", "records"])
def test_a_missing_folder_is_a_problem_not_a_crash(root: Path, part: str) -> None:
    folder = next(root.glob(f"tables/image/*/*/*/{part}"))
    shutil.rmtree(folder)
    assert any(str(folder) in line or "shards" in line for line in problems(root))


def test_a_record_of_another_table_or_name(root: Path) -> None:
    image = next(root.glob("tables/image/*/*/*/records"))
    text = next(root.glob("tables/text/*/*/*/records"))
    strange = shutil.copy(next(image.iterdir()), text)
    assert any(f"{strange}: belongs to table" in line for line in problems(root))
    Path(strange).unlink()
    record = next(image.iterdir())
    renamed = shutil.copy(record, record.with_name("0" * 32 + ".json"))
    assert any(str(renamed) in line for line in problems(root))


def test_a_shard_without_a_record_is_told(root: Path) -> None:
    shards = next(root.glob("tables/image/*/*/*/shards"))
    (shards / f"{'ab' * 16}.h5").write_bytes(b"left over")
    (shards / ".tmp-host-1-x.h5").write_bytes(b"unfinished")
    [problem] = problems(root)
    assert "ab" * 16 in problem
    assert "no valid record" in problem


def test_newer_parts_are_told_with_both_versions(root: Path) -> None:
    for pattern in (
        "tables/*/*/*/*/table.json",
        "tables/*/*/*/*/records/*.json",
        "examples/*/*/*.json",
    ):
        path = next(root.glob(pattern))
        good = path.read_bytes()
        path.write_bytes(good.replace(b'"version":1}', b'"version":5}'))
        assert any(
            str(path) in line and "version 5" in line and "up to 1" in line
            for line in problems(root)
        )
        path.write_bytes(good)
