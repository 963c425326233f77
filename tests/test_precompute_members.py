"""Pictures inside parquet rows and tars go through stage 1 like files, key, row and error alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import RESNET

import vqa_cache
from benchmarks.inputs.miniatures import BUILDERS, png
from precompute.__main__ import main

pytestmark = pytest.mark.usefixtures("libraries")


def encoded(cache: Path, name: str, root: Path, *more: str) -> Result:
    arguments = ["--dataset", name, "--root", str(root), "--cache", str(cache), "--image", RESNET]
    return CliRunner().invoke(main, [*arguments, *more])


def test_one_picture_is_one_row_wherever_it_lies(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for name in ("parquet", "webdataset"):
        BUILDERS[name](tmp_path / name)
        done = encoded(cache, name, tmp_path / name)
        assert done.exit_code == 0, done.output
    files = tmp_path / "files"
    files.mkdir()
    lines = []
    for colour in ("red", "blue"):
        (files / f"{colour}.png").write_bytes(png(colour))
        lines.append(json.dumps({"image": f"{colour}.png", "question": "q", "answer": "a"}))
    (files / "train.jsonl").write_text("\n".join(lines))
    done = encoded(cache, "jsonl", files)
    assert "0 encoded, 2 of 2 were there" in done.output, done.output
    opened = vqa_cache.open(cache)
    (table,) = opened.tables.values()
    assert len(table) == 2
    assert len(opened.examples("parquet/train")) == 4
    pictures = list((cache / "thumbnails").rglob("*.jpg"))
    assert len(pictures) == 2
    again = encoded(cache, "parquet", tmp_path / "parquet")
    assert "0 encoded, 2 of 2 were there" in again.output


def test_a_row_without_a_picture_fails_by_its_place(tmp_path: Path) -> None:
    BUILDERS["webdataset"](tmp_path / "tars")
    tar = tmp_path / "tars" / "train-000001.tar"
    tar.write_bytes(tar.read_bytes().replace(png("red")[:8], b"no image"))
    done = encoded(tmp_path / "cache", "webdataset", tmp_path / "tars")
    assert done.exit_code == 1
    [line] = done.stderr.splitlines()[-1:]
    assert f"{tar}::512+" in line
    assert "not an image that Pillow can read" in line
    done = encoded(tmp_path / "cache", "webdataset", tmp_path / "tars", "--on-error", "skip")
    assert done.exit_code == 0, done.output
