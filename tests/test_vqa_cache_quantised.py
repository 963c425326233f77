"""int8 with a scale a vector: what comes back, what is stored, and what reads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import BERT, RESNET, VIT, begin, commit, numbered_keys, write_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from test_precompute_pipeline import Told, run

import vqa_cache
from precompute.errors import PrecomputeError
from precompute.numerics import check_stored
from precompute.tables import EncoderSettings, _notes
from vqa_cache.__main__ import main
from vqa_cache.errors import DamagedError, NewerFormatError, TableNotFoundError
from vqa_cache.quantised import quantise, to_stored, widened
from vqa_cache.records import record as records
from vqa_cache.table import Table
from vqa_cache.tools.verify import verify

SETTINGS = EncoderSettings(dtype="int8", precision="fp32", rows_per_shard=3)


# ---------------------------------------------------------------- numbers


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 70), st.floats(-30, 38))
def test_a_value_comes_back_to_half_a_scale(seed: int, width: int, magnitude: float) -> None:
    draw = np.random.default_rng(seed)
    rows = torch.from_numpy((draw.uniform(-1, 1, (2, 3, width)) * 10**magnitude).astype("f4"))
    stored = quantise(rows)
    assert (stored.dtype, stored.shape) == (torch.int8, (2, 3, width + 4))
    assert torch.equal(stored[1, 2], quantise(rows[1, 2])), "a vector alone decides"
    assert int(stored[..., :width].min()) >= -127
    scale = stored[..., width:].contiguous().view(torch.float32).double()
    assert torch.equal(scale.float(), rows.abs().amax(-1, keepdim=True) / 127)
    wrong = (widened(stored).double() - rows.double()).abs()
    assert (wrong <= scale * (0.5 + 1e-4)).all()
    assert check_stored(rows, stored) == {}


def test_halves_go_to_the_even_integer_and_zeros_stay() -> None:
    rows = torch.tensor([[127.0, 0.5, 1.5, -2.5], [0.0, 0.0, -0.0, 0.0]])
    assert quantise(rows)[:, :4].tolist() == [[127, 0, 2, -2], [0, 0, 0, 0]]
    assert widened(quantise(rows)).tolist() == [[127, 0, 2, -2], [0, 0, 0, 0]]
    assert check_stored(rows, quantise(rows)) == {}


def test_what_no_scale_holds_is_told() -> None:
    largest = torch.finfo(torch.float32).max
    rows = torch.tensor([[3e38, 1.0], [1e-44, 1e-45], [1e-30, 1.0], [largest / 2, largest / 3]])
    wrong = check_stored(rows, to_stored(rows, "int8"))
    assert list(wrong) == [1]
    assert wrong[1].startswith("all values are tiny (at most 9.81e-45) and int8 keeps them no")


def test_rows_of_any_strides() -> None:
    rows = torch.arange(15.0).view(3, 5)
    for one in (rows.T, rows[:, None], rows[:1].expand(4, 5), rows[0]):
        assert torch.equal(quantise(one), quantise(one.clone()))


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("container", ["hdf5", "zarr"])
@pytest.mark.parametrize("ragged", [False, True])
def test_rows_are_given_as_float32(tmp_path: Path, container: Any, ragged: bool) -> None:
    made = begin(
        tmp_path / "cache", dtype="int8", container=container, ragged=ragged, row_shape=(2, 5)
    )
    draw = np.random.default_rng(0)
    values: Any = [draw.normal(size=(n, 2, 5) if ragged else (2, 5)) for n in (3, 0, 2)]
    keys = numbered_keys(3)
    commit(made, keys, values if ragged else np.stack(values))
    table = Table(made.folder)
    expected = [widened(quantise(torch.from_numpy(v).float())) for v in values]
    assert (table.row_shape, table.row_bytes) == ((2, 5), 2 * (5 + 4))
    assert table.stored_bytes == table.row_bytes * (5 if ragged else 3)
    for key, row in zip(keys, expected, strict=True):
        assert table[key].dtype == torch.float32
        assert torch.equal(table[key], row)
    if ragged:
        assert torch.equal(table.ragged_rows(keys[::-1])[0], torch.cat(expected[::-1]))
    else:
        assert torch.equal(table.tensor(), torch.stack(expected))
        assert torch.equal(widened(table.read()), table.tensor())
    assert list(verify(vqa_cache.open(tmp_path / "cache"))) == []


def test_outside_readers_find_integers_and_scale_side_by_side(tmp_path: Path) -> None:
    made = begin(tmp_path / "cache", dtype="int8", row_shape=(5,))
    record = commit(made, numbered_keys(3), np.random.default_rng(0).normal(size=(3, 5)))
    with h5py.File(made.folder / record.files[0].path) as file:
        rows = file["rows"][:]
        scales = [dim.values()[0].name for dim in file["rows"].dims]
        assert scales == ["/row", "/feature_byte"]
    by_hand = rows[:, :5] * np.ascontiguousarray(rows[:, 5:]).view("<f4")
    assert by_hand.tolist() == Table(made.folder).tensor().tolist()


def test_a_damaged_scale_is_never_given(tmp_path: Path) -> None:
    made = begin(tmp_path / "cache", dtype="int8", row_shape=(5,))
    record = commit(made, numbered_keys(3), np.ones((3, 5)))
    path = made.folder / record.files[0].path
    content = bytearray(path.read_bytes())
    content[record.arrays["rows"].offset + 9 + 5] ^= 1  # of the second row's scale
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="array 'rows', differ from their checksum"):
        _ = Table(made.folder)[numbered_keys(3)[1]]


def test_an_older_program_says_that_it_is_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = begin(tmp_path / "cache", dtype="int8")
    commit(made, numbered_keys(2), np.ones((2, 4)))
    made.seal()
    names = ("table.json", "seal.json", "records/*.json")
    found = [json.loads(p.read_text()) for name in names for p in made.folder.glob(name)]
    assert [one["version"] for one in found] == [2, 2, 2]
    other = begin(tmp_path / "other")
    assert json.loads((other.folder / "table.json").read_text())["version"] == 1
    monkeypatch.setattr(records, "FORMAT_VERSION", 1)
    told = r"table\.json: format version 2, this program reads up to 1; update vqa-cache"
    with pytest.raises(NewerFormatError, match=told):
        _ = vqa_cache.open(tmp_path / "cache").tables


def test_a_record_of_another_version_than_it_needs_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = begin(tmp_path / "cache", dtype="int8")
    with monkeypatch.context() as older:
        older.setattr(type(made.record), "version", 1)
        content = records.encode_record(made.record)
    with pytest.raises(DamagedError, match="x: format version 1, expected 2"):
        records.parse_record(content, type(made.record), "x")


@pytest.mark.parametrize("ragged", [False, True])
def test_imported_copied_and_exported(tmp_path: Path, ragged: bool) -> None:
    folder = tmp_path / "features"
    folder.mkdir()
    texts = ["a", "b", "c"]
    values = [np.random.default_rng(n).normal(size=(1 + n * ragged, 6)) for n in range(3)]
    np.save(folder / "x.npy", np.concatenate(values) if ragged else np.stack(values))
    if ragged:
        np.save(folder / "offsets.npy", np.cumsum([0, *map(len, values)]))
    (folder / "texts.json").write_text(json.dumps(texts))
    cache = tmp_path / "cache"

    def ok(*words: object) -> None:
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.output

    ok("import", "npy", folder / "x.npy", "--ids", folder / "texts.json", "--key-by", "text",
       "--encoder", "x", "--cache", cache, "--dtype", "int8")  # fmt: skip
    (table,) = vqa_cache.open(cache).tables.values()
    for text, row in zip(texts, values, strict=True):
        assert torch.equal(table[text], widened(quantise(torch.from_numpy(row).float())))
    ok("copy", cache, tmp_path / "copy", "--format", "zarr")
    ok("gc", "--cache", cache)
    (copied,) = vqa_cache.open(tmp_path / "copy").tables.values()
    assert torch.equal(copied["c"], table["c"])
    ok("export", table.folder, "--npy", tmp_path / "npy")
    ok("export", table.folder, "--safetensors", tmp_path / "st")
    rows = torch.cat([table[text].reshape(-1, 6) for text in texts])
    exported = np.load(tmp_path / "npy/rows.npy")
    assert exported.dtype == np.float32
    assert exported.reshape(-1, 6).tolist() == rows.tolist()
    again = load_file(tmp_path / "st/rows.safetensors")["rows"]
    assert again.tolist() == exported.tolist()


# ---------------------------------------------------------------- stage 1


@pytest.fixture(scope="module")
def small(libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("small") / "data", images=7, train=6, test=3)


def kept(cache: Path) -> dict[str, bytes]:
    files = sorted(p for p in (cache / "tables").rglob("*") if p.is_file())
    return {str(p.relative_to(cache)): p.read_bytes() for p in files}


@pytest.mark.parametrize("container", ["hdf5", "zarr"])
def test_stage_1_beside_fp16_resumed_and_repaired(
    small: Path, tmp_path: Path, container: Any
) -> None:
    """Two taps and two stored types in one pass, a grid, and ragged texts."""
    cache, told = tmp_path / "cache", Told()
    how: dict[str, Any] = {
        "image": (f"{RESNET}:tap=layer1:grid=2", RESNET), "text": (f"{BERT}:tap=tokens",),
        "settings": EncoderSettings("fp16", "fp32", None, container, 3), "also_stored": ("int8",),
    }  # fmt: skip
    run(small, cache, told=told, **how)
    whole, opened = kept(cache), vqa_cache.open(cache)
    assert list(verify(opened)) == []
    by_type: dict[str, list[Table]] = {"float16": [], "int8": []}
    for _, table in sorted(opened.tables.items()):
        by_type[table.dtype].append(table)
    assert len(by_type["int8"]) == 3
    for half, table in zip(by_type["float16"], by_type["int8"], strict=True):
        assert half.row_shape == table.row_shape
        keys = [*map(bytes, half.keys)]
        one, other = half.rows(keys).float().flatten(1), table.rows(keys).flatten(1)
        cosine = torch.nn.functional.cosine_similarity(one, other)
        assert cosine.min() > 0.999
        canaries = table.record.canaries
        assert canaries.cosine_worst is not None
        assert 0.999 < canaries.cosine_worst < 1
    with pytest.raises(TableNotFoundError, match=r"2 text tables .* match .*float16@.*int8@"):
        opened.find_table(f"{BERT}:tap=tokens", "text")
    table = by_type["int8"][0]
    lost = table.shards[1]
    (table.folder / "records" / f"{lost.shard}.json").unlink()
    (table.folder / "seal.json").unlink()
    run(small, cache, **how)
    damaged = table.folder / lost.path("rows")
    content = bytearray(damaged.read_bytes())
    content[lost.arrays["rows"].offset] ^= 1
    damaged.write_bytes(content)
    run(small, cache, repair=True, **how)
    assert kept(cache) == whole


def test_a_dry_run_tells_the_bytes(small: Path, tmp_path: Path) -> None:
    from precompute.estimate import estimate
    from precompute.pipeline import Request

    request = Request("jsonl", str(small), str(tmp_path / "c"), image=(VIT,), settings=SETTINGS)
    (told,) = estimate(request)
    run(small, tmp_path / "c", text=(), settings=SETTINGS)
    (table,) = vqa_cache.open(tmp_path / "c").tables.values()
    assert told.bytes == table.stored_bytes == 7 * (table.row_shape[-1] + 4)


def test_a_row_that_is_not_finite_is_an_error_of_its_item(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(small, tmp_path / "cache", text=(), settings=SETTINGS)  # its canaries are fine
    (table,) = vqa_cache.open(tmp_path / "cache").tables.values()
    shutil.rmtree(table.folder / "records")
    (table.folder / "seal.json").unlink()
    monkeypatch.setattr("precompute.encode.check_stored", lambda rows, _: check_stored(
        rows / 0, quantise(rows / 0)))  # fmt: skip
    with pytest.raises(PrecomputeError, match="the encoder's output is not finite"):
        run(small, tmp_path / "cache", text=(), settings=SETTINGS)


def test_a_worst_cosine_too_small_is_told(tmp_path: Path) -> None:
    from dataclasses import replace

    made = begin(tmp_path / "cache", dtype="int8")
    for worst, told in ((0.9991, ()), (0.9985, (
        f"{made.name}: the probe items' worst cosine to fp32 is 0.998500, below 0.999; "
        "--dtype fp16 keeps rows better",
    ))):  # fmt: skip
        canaries = replace(made.record.canaries, cosine_worst=worst, underflow=0.02)
        made.record = replace(made.record, canaries=canaries)
        assert _notes(made) == told
