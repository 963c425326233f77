"""The memo is an accelerator: damaged, foreign or absent, it costs time and nothing else."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from vqa_cache.memo import Memo, file_stat

STAT = (10, 20, 30, 40)


def filled(path: Path) -> None:
    memo = Memo(path)
    memo.remember_table({"spec": "timm:x"}, "ab" * 16)
    memo.remember_images((f"/images/{n}.png", STAT, bytes([n]) * 16) for n in range(200))
    memo.close()


def test_what_is_remembered(tmp_path: Path) -> None:
    filled(tmp_path / "memo.sqlite")
    assert os.listdir(tmp_path) == ["memo.sqlite"]  # no journal beside it
    memo = Memo(tmp_path / "memo.sqlite")
    assert memo.table_id({"spec": "timm:x"}) == "ab" * 16
    assert memo.table_id({"spec": "timm:y"}) is None
    assert memo.image_keys()["/images/7.png"] == (STAT, b"\x07" * 16)
    memo.remember_table({"spec": "timm:x"}, "cd" * 16)
    assert memo.table_id({"spec": "timm:x"}) == "cd" * 16
    memo.close()


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database" * 500)


def malformed(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE images (other TEXT)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("damage", [garbage, malformed, truncated, empty, foreign])
def test_a_damaged_memo_becomes_an_empty_one(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "memo.sqlite"
    filled(path)
    damage(path)
    memo = Memo(path)
    assert memo.table_id({"spec": "timm:x"}) is None
    assert memo.image_keys() == {}
    memo.remember_images([("/images/1.png", STAT, b"k" * 16)])
    memo.remember_table({"spec": "timm:x"}, "ab" * 16)
    memo.close()
    again = Memo(path)
    assert again.image_keys() == {"/images/1.png": (STAT, b"k" * 16)}
    assert again.table_id({"spec": "timm:x"}) == "ab" * 16
    again.close()


def test_a_memo_in_use_is_shared_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "memo.sqlite"
    first = Memo(path)
    first.remember_table("evidence", "ab" * 16)
    second = Memo(path)
    assert second.table_id("evidence") == "ab" * 16
    second.remember_table("other", "cd" * 16)
    second.close()
    assert first.table_id("other") == "cd" * 16
    first.close()


def test_a_changed_file_has_another_stat(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("one")
    before = file_stat(path)
    assert before == file_stat(path)
    os.utime(path, ns=(1, 1))
    assert file_stat(path) != before
    with pytest.raises(FileNotFoundError):
        file_stat(tmp_path / "none")
