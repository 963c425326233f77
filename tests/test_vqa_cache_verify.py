"""Verification finds one changed byte anywhere and names the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import begin, commit, numbered_keys
from test_vqa_cache_examples import columns, write

import vqa_cache
from vqa_cache.contents import list_contents, picture_entry
from vqa_cache.identity import add_spec
from vqa_cache.spec import parse_spec
from vqa_cache.system.durable import remove
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
        table.withdraw(numbered_keys(1, number + 50), "asked")
    for split in ("train", "val"):
        write(root / "examples" / "d" / split, columns([f"{split}?", "b?"]))
        write(root / "examples" / "d" / split, columns([f"{split}?"]))
    pictures = {key.hex(): b"jpeg" + key for key in numbered_keys(2)}
    (root / "thumbnails").mkdir()
    for key, content in pictures.items():
        (root / "thumbnails" / f"{key}.jpg").write_bytes(content)
    entries = {key: picture_entry(content) for key, content in pictures.items()}
    list_contents(root, splits=["d/train", "d/val"], pictures=entries)
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
    kinds = {"records", "shards", "specs", "withdrawn", "examples", "thumbnails"}
    return next((part for part in parts if part in kinds), path.name)


KINDS = [
    "records", "shards", "specs", "withdrawn", "examples", "thumbnails", "seal.json", "table.json"
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
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


DAMAGES: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "appended blank": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "zeros in place": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_that_is_damaged_is_found(root: Path, kind: str, damage: str) -> None:
    for path in [one for one in files(root) if kind_of(one, root) == kind]:
        good = path.read_bytes()
        DAMAGES[damage](path)
        found = problems(root)
        near = str(path.parent) if path.name == "table.json" else str(path)
        if path.match("examples/*/*/*.json") and damage == "removed":
            near = str(path.with_suffix(".h5"))
        assert any(near in line for line in found), (path, found)
        path.write_bytes(good)
    assert problems(root) == []


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_a_kind_that_were_swapped_are_found(root: Path, kind: str) -> None:
    paths = [one for one in files(root) if kind_of(one, root) == kind]
    for one, other in pairwise(paths):
        good = one.read_bytes(), other.read_bytes()
        if good[0] == good[1]:  # of one shape in two containers
            continue
        one.write_bytes(good[1])
        other.write_bytes(good[0])
        assert problems(root), (one, other)
        one.write_bytes(good[0])
        other.write_bytes(good[1])
    assert problems(root) == []


def test_a_record_and_its_shard_deleted_together_are_missed(root: Path) -> None:
    for record in list(root.glob("tables/*/*/*/*/records/*.json")):
        [shard] = record.parent.parent.glob(f"shards/{record.stem}.*")
        record.unlink()
        remove(shard)
        assert any(f"{record}: missing" in line for line in problems(root))
        assert any(f"{shard}" in line for line in problems(root))


def test_splits_that_were_swapped_are_found(root: Path) -> None:
    train, val = (root / "examples" / "d" / name for name in ("train", "val"))
    train.rename(root / "aside")
    val.rename(train)
    (root / "aside").rename(val)
    assert any("belongs to d/val" in line for line in problems(root))


def test_an_older_state_of_a_split_is_found(root: Path) -> None:
    for path in root.glob("examples/d/train/000002.*"):
        path.unlink()
    assert any("generation 2 is gone" in line for line in problems(root))


def test_a_picture_that_nobody_listed_is_found(root: Path) -> None:
    (root / "thumbnails" / f"{'0' * 32}.jpg").write_bytes(b"of whom?")
    [problem] = problems(root)
    assert "is not listed in" in problem


def test_records_that_are_not_sealed_yet_are_no_problem(root: Path) -> None:
    """A run is under way, or was interrupted."""
    table = begin(root, container="hdf5")
    commit(table, numbered_keys(2, 20), np.ones((2, 4)))
    assert problems(root) == []


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
            str(path) in line and "version 5" in line and "up to 2" in line
            for line in problems(root)
        )
        path.write_bytes(good)
