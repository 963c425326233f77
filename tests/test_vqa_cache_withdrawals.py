"""`vqa-cache withdraw`: rows that are served no more and never come back by themselves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import RESNET, begin, commit, numbered_keys

import vqa_cache
from precompute.pipeline import Request, precompute
from precompute.progress import ConsoleReporter
from vqa_cache.__main__ import main
from vqa_cache.errors import DamagedError, KeyNotFoundError
from vqa_cache.table import Table
from vqa_cache.tools.verify import verify

KEYS = numbered_keys(5)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["withdraw", *map(str, arguments)])


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Rows 0 to 4 of keys 0 to 4, in two shards."""
    made = begin(tmp_path / "cache", row_shape=(1,))
    commit(made, KEYS[:3], [[0], [1], [2]])
    commit(made, KEYS[3:], [[3], [4]])
    Table(made.folder).seal()
    return Table(made.folder)


def test_withdrawn_rows_are_not_served(table: Table, tmp_path: Path) -> None:
    listed = tmp_path / "keys.txt"
    listed.write_text(f"{KEYS[1].hex()}\n{KEYS[4].hex().upper()}\n{'0' * 32}\n")
    result = run("pooled", "--cache", tmp_path / "cache", "--keys", listed, "--reason", "consent")
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        f"{table.name}: 3 keys withdrawn, 2 of them had rows; 3 rows are left\n"
    )
    fresh = Table(table.folder)
    assert sorted(fresh.tensor().flatten().tolist()) == [0, 2, 3]
    assert fresh.failed[KEYS[1]] == "withdrawn: consent"
    with pytest.raises(KeyNotFoundError):
        fresh[KEYS[4]]
    assert fresh.rows([KEYS[3], KEYS[0]]).flatten().tolist() == [3, 0]
    assert list(verify(vqa_cache.open(tmp_path / "cache"))) == []


def test_withdrawing_again_says_the_same(table: Table, tmp_path: Path) -> None:
    listed = tmp_path / "keys.txt"
    listed.write_text(KEYS[0].hex())
    for rows in (1, 0):
        result = run("pooled", "--cache", tmp_path / "cache", "--keys", listed, "--json")
        assert json.loads(result.stdout)["rows"] == rows
    [record] = (table.folder / "withdrawn").iterdir()
    record.unlink()
    assert len(Table(table.folder)) == 4
    (table.folder / "seal.json").unlink()  # with it, the documented way back
    assert len(Table(table.folder)) == 5


def test_damage_never_brings_rows_back(table: Table, tmp_path: Path) -> None:
    listed = tmp_path / "keys.txt"
    listed.write_text(KEYS[0].hex())
    run("pooled", "--cache", tmp_path / "cache", "--keys", listed)
    [record] = (table.folder / "withdrawn").iterdir()
    record.write_bytes(record.read_bytes().replace(b"by request", b"by mistake"))
    assert len(Table(table.folder)) == 4  # the seal lists it
    [problem] = verify(vqa_cache.open(tmp_path / "cache"))
    assert str(record) in problem
    (table.folder / "seal.json").unlink()
    with pytest.raises(DamagedError, match="says which rows are withdrawn: restore it"):
        Table(table.folder).tensor()
    assert any(str(record) in line for line in verify(vqa_cache.open(tmp_path / "cache")))


def test_texts(tmp_path: Path) -> None:
    made = begin(tmp_path / "cache", modality="text", row_shape=(1,))
    commit(made, ["yes", "no"], [[1], [2]])
    result = run("pooled", "--cache", tmp_path / "cache", "--text", "yes")
    assert result.exit_code == 0
    assert Table(made.folder).texts() == ["no"]
    result = run("pooled", "--cache", tmp_path / "cache", "--image", "a.png")
    assert result.exit_code == 1
    assert result.stderr == "error: 'a.png' is not what the table holds, which is texts\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [("0123\n", "key 1 is '0123', expected 32 hex digits"), (None, "cannot be read")],
)
def test_bad_lists_are_one_line(
    table: Table, tmp_path: Path, content: str | None, said: str
) -> None:
    listed = tmp_path / "keys.txt"
    if content is not None:
        listed.write_text(content)
    result = run("pooled", "--cache", tmp_path / "cache", "--keys", listed)
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert run("pooled", "--cache", tmp_path / "cache").exit_code == 2
    assert not (table.folder / "withdrawn").exists()


def test_stage_1_does_not_bring_an_image_back(dataset: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def encode(**how: bool) -> list[int]:
        request = Request("jsonl", str(dataset), str(cache), image=(RESNET,), **how)
        [result] = precompute(request, ConsoleReporter(quiet=True))
        return [result.encoded, result.present, result.failed]

    assert encode() == [10, 0, 0]
    picture = dataset / "images" / "3.jpg"
    result = run("timm", "--cache", cache, "--image", picture)
    assert result.exit_code == 0, result.output
    assert encode() == [0, 9, 1]
    assert encode(retry_failed=True) == [0, 9, 1]
    [table] = vqa_cache.open(cache).tables.values()
    assert (len(table), len(table.tensor())) == (9, 9)
    assert np.isin(vqa_cache.image_key(picture), list(table.withdrawn))


def test_no_small_picture_is_left_or_made_again(dataset: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    request = Request("jsonl", str(dataset), str(cache), image=(RESNET,))
    precompute(request, ConsoleReporter(quiet=True))
    picture = dataset / "images" / "3.jpg"
    key = vqa_cache.image_key(picture).hex()
    assert vqa_cache.open(cache).thumbnail(key)
    assert run("timm", "--cache", cache, "--image", picture).exit_code == 0
    assert vqa_cache.open(cache).thumbnail(key) is None
    # another generation of the split, which writes the pictures that lack
    precompute(replace(request, limit=9), ConsoleReporter(quiet=True))
    opened = vqa_cache.open(cache)
    assert opened.thumbnail(key) is None
    assert len(list((cache / "thumbnails").iterdir())) == 9
