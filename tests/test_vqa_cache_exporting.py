"""`vqa-cache export`: what other programs read is what the table holds, and it comes back."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import begin, commit, numbered_keys
from safetensors import safe_open

import vqa_cache
from vqa_cache.__main__ import main
from vqa_cache.arrays import read_texts
from vqa_cache.records.record import stamped
from vqa_cache.table import Table

DTYPES = ("float16", "float32", "bfloat16")
TEXTS = [f"question {number}\n größer?" for number in range(300)]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def filled(root: Path, *, ragged: bool, dtype: str, modality: str = "text") -> Table:
    """More rows than are exported at once, in two shards."""
    made = begin(root, ragged=ragged, dtype=dtype, modality=modality, row_shape=(2, 3))
    draw = np.random.default_rng(3)
    lengths = [number % 4 for number in range(300)]
    values: Any = [
        draw.integers(-99, 99, ((n, 2, 3) if ragged else (2, 3))).astype(np.float32)
        for n in lengths
    ]
    items: list[Any] = TEXTS if modality == "text" else numbered_keys(300)
    for part in (slice(0, 200), slice(200, 300)):
        commit(made, items[part], values[part] if ragged else np.stack(values[part]))
    return Table(made.folder)


@pytest.fixture(params=[(r, d) for r in (False, True) for d in DTYPES], ids=str)
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    ragged, dtype = request.param
    return filled(tmp_path / "cache", ragged=ragged, dtype=dtype)


def export(table: Table, kind: str, folder: Path) -> list[str]:
    result = run("export", table.folder, f"--{kind}", folder)
    assert result.exit_code == 0, result.output
    assert sorted(map(str, folder.iterdir())) == sorted(result.stdout.splitlines())
    return [path.name for path in sorted(folder.iterdir())]


def expected(table: Table) -> list[Any]:
    return [table[text].float().tolist() for text in table.texts()]


def test_npy_comes_back(table: Table, tmp_path: Path) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    names = export(table, "npy", out)
    assert names == sorted(
        ["keys.txt", "rows.npy", "table.json", "texts.json"]
        + (["offsets.npy"] if table.ragged else [])
    )
    rows = np.load(out / "rows.npy", allow_pickle=False)
    assert rows.dtype == ("float32" if table.dtype == "bfloat16" else table.dtype)
    assert len(rows) == (table.lengths.sum() if table.ragged else 300)
    short = {"float16": "fp16", "float32": "fp32", "bfloat16": "bf16"}[table.dtype]
    result = run(
        "import", "npy", out / "rows.npy", "--ids", out / "texts.json", "--key-by", "text",
        "--encoder", "x", "--dtype", short, "--cache", again,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    [back] = vqa_cache.open(again).tables.values()
    assert back.ragged == table.ragged
    assert back.dtype == table.dtype
    assert back.texts() == table.texts()
    assert expected(back) == expected(table)
    assert (out / "keys.txt").read_text().split() == [key.tobytes().hex() for key in table.keys]
    assert json.loads((out / "table.json").read_text()) == stamped(table.record)


def test_parquet(table: Table, tmp_path: Path) -> None:
    assert export(table, "parquet", tmp_path / "out") == ["rows.parquet"]
    read = pyarrow.parquet.read_table(tmp_path / "out" / "rows.parquet")
    assert read.column_names == ["key", "text", "row"]
    assert read["key"].to_pylist() == [key.tobytes().hex() for key in table.keys]
    assert read["text"].to_pylist() == table.texts()
    shape = json.loads(read.schema.field("row").metadata[b"shape"])
    assert shape == ([-1, 2, 3] if table.ragged else [2, 3])
    rows = [np.array(row, np.float32).reshape(shape).tolist() for row in read["row"].to_pylist()]
    assert rows == expected(table)
    assert json.loads(read.schema.metadata[b"vqa_cache"]) == stamped(table.record)


def test_safetensors(table: Table, tmp_path: Path) -> None:
    assert export(table, "safetensors", tmp_path / "out") == ["rows.safetensors"]
    with safe_open(tmp_path / "out" / "rows.safetensors", "pt") as file:
        rows = file.get_tensor("rows")
        assert rows.dtype == getattr(torch, table.dtype)
        if table.ragged:
            edges = file.get_tensor("offsets").tolist()
            pieces = [rows[a:b] for a, b in pairwise(edges)]
        else:
            pieces = list(rows)
        assert [piece.float().tolist() for piece in pieces] == expected(table)
        assert np.array_equal(file.get_tensor("keys").numpy(), table.keys)
        texts = file.get_tensor("text_bytes").numpy(), file.get_tensor("text_offsets").numpy()
        assert read_texts(*texts) == table.texts()
        assert json.loads(file.metadata()["vqa_cache"]) == stamped(table.record)


@pytest.mark.parametrize("kind", ["npy", "parquet", "safetensors"])
def test_images_and_empty_tables(tmp_path: Path, kind: str) -> None:
    table = filled(tmp_path / "cache", ragged=False, dtype="float16", modality="image")
    export(table, kind, tmp_path / "out")
    assert not (tmp_path / "out" / "texts.json").exists()
    empty = begin(tmp_path / "empty")
    export(empty, kind, tmp_path / "none")
    if kind == "npy":
        assert np.load(tmp_path / "none" / "rows.npy").shape == (0, 4)


def test_misuse_and_damage(tmp_path: Path) -> None:
    table = filled(tmp_path / "cache", ragged=False, dtype="float16")
    assert run("export", table.folder, tmp_path / "out").exit_code == 2
    result = run("export", "vit", tmp_path / "out", "--npy", "--cache", tmp_path / "cache")
    assert "no table named 'vit'" in result.stderr
    next((table.folder / "shards").iterdir()).unlink()
    for kind in ("npy", "parquet", "safetensors"):
        result = run("export", table.folder, tmp_path / "out", f"--{kind}")
        assert result.exit_code == 1
        assert ".h5: " in result.stderr
        assert result.stderr.count("\n") == 1
        assert list((tmp_path / "out").glob("*rows*")) == []  # whole or not at all
