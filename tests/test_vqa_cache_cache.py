"""Opening a cache, finding tables, its face."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import begin, commit, numbered_keys
from test_vqa_cache_examples import columns, write

import vqa_cache
from vqa_cache.cache import create_cache
from vqa_cache.errors import (
    CacheError,
    DamagedError,
    NewerFormatError,
    NotACacheError,
    TableNotFoundError,
)
from vqa_cache.identity import add_spec
from vqa_cache.spec import EncoderSpec
from vqa_cache.tools.transfer import copy_split, copy_table
from vqa_cache.tools.verify import verify


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two image tables and a text table, each with its spec."""
    root = tmp_path / "cache"
    made: list[dict[str, Any]] = [
        {"model": "resnet18", "tap": "layer1", "options": {"grid": "2"}, "row_shape": (4, 3)},
        {"model": "resnet18", "tap": "layer2", "options": {"grid": "4"}},
        {"model": "org/bert", "tap": "mean", "modality": "text", "dtype": "bfloat16"},
    ]
    for how in made:
        table = begin(root, **how)
        spec = EncoderSpec("timm", how["model"], None, how["tap"], how.get("options", {}))
        add_spec(table, spec)
    table = vqa_cache.open(root).tables["layer2"]
    commit(table, numbered_keys(3), np.zeros((3, 4)), failed={1: "<b>truncated</b>"})
    return root


def test_there_must_be_a_cache(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(NotACacheError, match=r"no cache here .*; name its folder, or make one"):
            vqa_cache.open(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotACacheError):
        vqa_cache.open(tmp_path / "file")


def test_a_newer_cache_names_both_versions(root: Path) -> None:
    path = root / "CACHE.json"
    path.write_bytes(path.read_bytes().replace(b'"version":1}', b'"version":3}'))
    with pytest.raises(NewerFormatError, match=r"CACHE.json: format version 3, .* up to 2"):
        vqa_cache.open(root)


def test_a_cache_is_made_once_and_only_in_an_empty_folder(tmp_path: Path) -> None:
    create_cache(tmp_path / "a" / "b")
    first = (tmp_path / "a" / "b" / "CACHE.json").read_bytes()
    create_cache(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "CACHE.json").read_bytes() == first
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("")
    with pytest.raises(NotACacheError, match="exists and is no cache; expected a new or empty"):
        create_cache(tmp_path / "photos")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotACacheError):
        create_cache(tmp_path / "file")


def test_what_a_killed_or_slower_writer_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".tmp-host-1-CACHE.json").write_text('{"form')
    create_cache(tmp_path)
    assert list(vqa_cache.open(tmp_path).tables) == []


def test_names_are_short_while_they_are_unique(root: Path) -> None:
    tables = vqa_cache.open(root).tables
    assert len(tables) == 3
    assert all(tables[name].name == name for name in tables)
    assert tables["text/"].modality == "text"
    assert tables["layer1"].row_shape == (4, 3)
    whole = tables["text/"]
    assert tables[whole.id[:8]].name == whole.name
    assert whole.name.startswith("text/timm.org--bert/mean/bfloat16@")
    with pytest.raises(
        TableNotFoundError, match=r"2 tables named 'resnet18'; those are: .*layer1.*layer2"
    ):
        tables["resnet18"]
    with pytest.raises(TableNotFoundError, match=r"no table named 'vit'; the cache has: image/"):
        tables["vit"]


def test_finding_by_what_was_typed(root: Path) -> None:
    cache = vqa_cache.open(root)
    assert "layer1" in cache.find_table("timm:resnet18:tap=layer1:grid=2", "image").name
    assert "layer2" in cache.find_table("timm:resnet18:grid=4:tap=layer2", "image").name
    assert cache.find_table("org--bert", "text").modality == "text"
    assert cache.find_table("timm:org/bert:tap=mean", "text").modality == "text"


@pytest.mark.parametrize(
    ("wanted", "modality", "told"),
    [
        ("timm:resnet18:tap=layer3:grid=4", "image", r"tap layer2, wanted layer3"),
        ("timm:resnet18:tap=layer2:grid=2", "image", r"grid 4, wanted 2"),
        ("timm:resnet18:tap=layer2", "image", r"grid 4, wanted not set"),
        ("timm:resnet18:tap=layer2:grid=4:size=64", "image", r"size not set, wanted 64"),
        ("timm:resnet50:tap=layer2:grid=4", "image", r"model resnet18, wanted resnet50"),
        ("timm:resnet18@abc:tap=layer2:grid=4", "image", r"revision None, wanted abc"),
        ("hf:resnet18:tap=layer2:grid=4", "image", r"family timm, wanted hf"),
        ("text/", "image", r"holds texts, expected one of images"),
    ],
)
def test_what_differs_is_told(root: Path, wanted: str, modality: Any, told: str) -> None:
    with pytest.raises(TableNotFoundError, match=told) as caught:
        vqa_cache.open(root).find_table(wanted, modality)
    assert "\n" not in str(caught.value)
    assert re.search(r"(image|text)/timm\.", str(caught.value))


def test_several_matches_are_listed(root: Path) -> None:
    twin = begin(root, model="resnet18", tap="layer1", options={"grid": "2"}, dtype="float32")
    add_spec(twin, EncoderSpec("timm", "resnet18", None, "layer1", {"grid": "2"}))
    with pytest.raises(TableNotFoundError, match=r"2 image tables in .*name one of them instead"):
        vqa_cache.open(root).find_table("timm:resnet18:tap=layer1:grid=2", "image")


def test_no_table_at_all(tmp_path: Path) -> None:
    cache = create_cache(tmp_path / "cache")
    with pytest.raises(TableNotFoundError, match="it has no image table"):
        cache.find_table("timm:resnet18", "image")
    with pytest.raises(TableNotFoundError, match="the cache has: none"):
        cache.tables["x"]
    with pytest.raises(CacheError, match=r"no split 'easy_vqa/train'; the cache has: none"):
        cache.split("easy_vqa/train")
    assert repr(cache) == f"<vqa-cache {tmp_path / 'cache'}>"


def test_its_face(root: Path) -> None:
    cache = vqa_cache.open(root)
    shown = repr(cache)
    assert shown.startswith(f"<vqa-cache {root}>")
    assert shown.count("<Table ") == 3
    assert "layer2-mean/float16@" in shown
    page = cache._repr_html_()
    assert page.count("<tr>") == 4
    assert "<td>2</td>" in page
    assert "<td>1</td>" in page  # failed
    other = create_cache(root.parent / "<i>odd & name")
    assert "<i>odd" not in other._repr_html_()
    assert "&lt;i&gt;odd &amp; name" in other._repr_html_()


def test_its_summary(root: Path) -> None:
    rows = {row["name"]: row for row in vqa_cache.open(root).summary()}
    [layer2] = [row for name, row in rows.items() if "layer2" in name]
    assert layer2["rows"] == 2
    assert layer2["shape"] == [4]
    assert layer2["bytes"] == 2 * 4 * 2
    assert layer2["failed"] == 1
    assert layer2["spec"] == "timm:resnet18:grid=4:tap=layer2"


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"{")])
def test_a_damaged_table_is_known_from_its_seal(
    root: Path, damage: Callable[[Path], object]
) -> None:
    """Left out, its rows would be missing without a word."""
    folder = vqa_cache.open(root).tables["layer1"].folder
    path = folder / "table.json"
    good = path.read_bytes()
    damage(path)
    table = vqa_cache.open(root).tables["layer1"]
    assert len(vqa_cache.open(root).tables) == 3
    assert any(str(path) in line for line in verify(vqa_cache.open(root)))
    table.restore_records()
    assert path.read_bytes() == good
    damage(path)
    (folder / "seal.json").write_bytes(b"{")
    if path.exists():
        with pytest.raises(DamagedError, match=r"table\.json: .*delete the table's folder and run"):
            len(vqa_cache.open(root).tables)
    assert any(str(folder) in line for line in verify(vqa_cache.open(root)))


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b"{"), lambda path: path.write_bytes(b"")]
)
def test_a_writer_writes_a_lost_marker_again(root: Path, damage: Callable[[Path], object]) -> None:
    path = root / "CACHE.json"
    good = path.read_bytes()
    damage(path)
    with pytest.raises(CacheError, match=r"CACHE\.json"):
        vqa_cache.open(root)
    create_cache(root)
    assert path.read_bytes() == good


def test_another_programs_marker_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "CACHE.json"
    path.write_text('{"of": "another program"}')
    with pytest.raises(DamagedError, match=r"CACHE\.json"):
        create_cache(tmp_path)
    assert path.read_text() == '{"of": "another program"}'
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_writer_adopts_the_first_ones_table(root: Path) -> None:
    before = vqa_cache.open(root).tables["layer2"]
    content = (before.folder / "table.json").read_bytes()
    again = begin(root, model="resnet18", tap="layer2", options={"grid": "4"}, container="zarr")
    assert again.id == before.id
    assert again.record.container == "hdf5"
    assert (before.folder / "table.json").read_bytes() == content


def test_the_name_of_every_folder_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder whose own name is lost takes everything in it along."""
    pending: dict[str, str] = {}  # a folder -> the one above it
    mkdir, sync = os.mkdir, os.fsync

    def noting_mkdir(path: Path, *how: object) -> None:
        mkdir(path, *how)
        if ".tmp-" not in str(path):
            pending[str(path)] = str(Path(path).parent)

    def noting_sync(descriptor: int) -> None:
        sync(descriptor)
        done = os.readlink(f"/proc/self/fd/{descriptor}")
        for folder in [one for one, above in pending.items() if above == done]:
            del pending[folder]

    monkeypatch.setattr(os, "mkdir", noting_mkdir)
    monkeypatch.setattr(os, "fsync", noting_sync)
    root = tmp_path / "deep" / "cache"
    create_cache(root)
    for container in ("hdf5", "zarr"):
        table = begin(root, container=container, tap=container)
        add_spec(table, EncoderSpec("timm", "made-up", None, container, {}))
        commit(table, numbered_keys(3), np.zeros((3, 4)))
        table.withdraw(numbered_keys(1), "asked")
    write(root / "examples" / "d" / "train", columns(["a?"]))
    copied = create_cache(tmp_path / "other" / "copy")
    for table in vqa_cache.open(root).tables.values():
        copy_table(table, copied, None)
    copy_split(vqa_cache.open(root), "d/train", copied)
    assert (root / "examples" / "d" / "train").is_dir()
    assert pending == {}
