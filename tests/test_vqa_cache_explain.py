"""`vqa-cache explain`: why two tables differ."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import VIT, begin, commit, numbered_keys, stored

import vqa_cache
from precompute.pipeline import Request, precompute
from precompute.progress import ConsoleReporter
from precompute.tables import EncoderSettings
from vqa_cache.__main__ import main
from vqa_cache.records.record import encode_record, read_record
from vqa_cache.records.table import Canaries, TableRecord


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["explain", *map(str, arguments)])


def changed(table: Any, **fields: Any) -> None:
    path = table.folder / "table.json"
    path.write_bytes(encode_record(replace(read_record(path, TableRecord), **fields)))


def with_canaries(table: Any, rows: Any) -> None:
    raw = stored(np.array(rows), table.dtype).tobytes()
    changed(
        table,
        canaries=Canaries(len(rows), raw, 1.0, 1.0),
    )


def test_fields_stand_side_by_side(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    a = begin(root, tap="layer2", options={"resize": "256"})
    b = begin(root, tap="layer3", options={"resize": "224", "crop": "centre"})
    commit(a, numbered_keys(3), np.zeros((3, 4)))
    commit(b, numbered_keys(3, 1), np.zeros((3, 4)))
    result = run("layer2", "layer3", "--cache", root)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"A: {a.name}",
        f"B: {b.name}",
        "preprocessing.crop: A not set, B centre (items reach the encoder otherwise)",
        "preprocessing.resize: A 256, B 224 (items reach the encoder otherwise)",
        "tap: A layer2, B layer3 (the rows were taken at another place in the model)",
        "the same in both: modality, library, model, revision, weights, architecture, pooling, "
        "dtype",
        "items that both have: 2",
    ]
    told = json.loads(run("layer2", "layer3", "--cache", root, "--json").stdout)
    assert [item["field"] for item in told["identity"]] == [
        "preprocessing.crop",
        "preprocessing.resize",
        "tap",
    ]
    assert told["canary_cosine"] is None


def test_the_same_table_of_two_caches(tmp_path: Path) -> None:
    a, b = begin(tmp_path / "a"), begin(tmp_path / "b", container="zarr")
    changed(b, environment={"torch": "9.9"}, threads=4)
    result = run(a.folder, b.folder)
    assert result.exit_code == 0
    assert "one identity: they are the same table" in result.stdout
    assert "recorded threads: A 1, B 4 (other orders of summation" in result.stdout
    assert "recorded environment.torch: A not set, B 9.9 (other library" in result.stdout
    assert "recorded container: A hdf5, B zarr (other files, the same rows)" in result.stdout


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_canaries_tell_how_far_apart_the_rows_are(tmp_path: Path, dtype: str) -> None:
    root = tmp_path / "cache"
    a, b = (begin(root, tap=tap, dtype=dtype, row_shape=(2,)) for tap in ("one", "two"))
    with_canaries(a, [[1.0, 0.0], [0.0, 0.0]])
    with_canaries(b, [[1.0, 1.0], [0.0, 0.0]])
    assert "worst cosine between A and B is 0.707107" in run("one", "two", "--cache", root).stdout
    with_canaries(b, [[1.0, 0.0], [0.0, 0.0]])
    assert "worst cosine between A and B is 1.000000" in run("one", "two", "--cache", root).stdout


def test_an_unknown_table_lists_the_known(tmp_path: Path) -> None:
    begin(tmp_path / "cache")
    result = run("vit", "pooled", "--cache", tmp_path / "cache")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no table named 'vit'; the cache has: image/timm.made-")


def test_real_encoders(dataset: Path, tmp_path: Path) -> None:
    """A seed, an epsilon, a tap and a stored type, as stage 1 records them."""
    cache = tmp_path / "cache"
    for image, dtype in (
        (VIT, "fp16"),
        (VIT.replace("random=0", "random=1"), "fp16"),
        (f"{VIT}:layer_norm_eps=0.1", "fp16"),
        (VIT, "fp32"),
        (f"{VIT}:tap=mean", "fp16"),
    ):
        settings = EncoderSettings(dtype=dtype, precision="fp32")  # type: ignore[arg-type]
        request = Request("jsonl", str(dataset), str(cache), image=(image,), settings=settings)
        precompute(request, ConsoleReporter(quiet=True))
    opened = vqa_cache.open(cache)
    tables = {}
    for table in opened.tables.values():
        spec = table.record.spec
        options = spec.options
        which = options["random"], options.get("layer_norm_eps"), spec.tap, table.dtype
        tables[which] = table.folder

    def fields(*which: str | None) -> set[str]:
        first = tables["0", None, "cls", "float16"]
        told = json.loads(run(first, tables[which], "--json").stdout)
        return {item["field"].split(".")[0] for item in told["identity"]}

    assert fields("1", None, "cls", "float16") == {"weights"}
    assert fields("0", "0.1", "cls", "float16") == {"architecture"}
    assert fields("0", None, "cls", "float32") == {"dtype"}
    assert "tap" in fields("0", None, "mean", "float16")
