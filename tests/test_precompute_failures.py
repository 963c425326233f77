"""Items that fail, recorded failures, retries, repairs."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import BERT, VIT, save_bert, write_dataset
from PIL import Image, ImageFile

import vqa_cache
from benchmarks.measuring.warm import Finished, Warm
from vqa_cache.cache import Cache
from vqa_cache.examples import current_record
from vqa_cache.keys import image_key
from vqa_cache.table import Table
from vqa_cache.tools.verify import verify

pytestmark = pytest.mark.usefixtures("libraries")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight images, to be broken."""
    return write_dataset(tmp_path / "data", images=8, train=10, test=4)


class Stage1:
    """The command over a dataset and a cache, and the cache it left."""

    def __init__(self, warm: Warm, data: Path, cache: Path) -> None:
        self._warm, self.data, self.cache = warm, data, cache

    def __call__(self, *arguments: object, encoder: tuple[str, str] = ("--image", VIT)) -> Finished:
        where = (
            "--name",
            "jsonl",
            "--dataset",
            "jsonl",
            "--root",
            self.data,
            "--cache",
            self.cache,
        )
        return self._warm(*where, *encoder, "--precision", "fp32", *arguments)

    def ok(self, *arguments: object, **how: Any) -> str:
        done = self(*arguments, **how)
        assert done.status == 0, done.stderr
        return done.stderr

    @property
    def opened(self) -> Cache:
        return vqa_cache.open(self.cache)

    @property
    def table(self) -> Table:
        [table] = self.opened.tables.values()
        return table

    def problems(self) -> list[str]:
        return list(verify(self.opened))


@pytest.fixture
def stage1(warm: Warm, data: Path, tmp_path: Path) -> Stage1:
    return Stage1(warm, data, tmp_path / "cache")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_picture(path: Path) -> None:
    path.write_text("I am no picture")


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("3.jpg", truncate, r"3\.jpg: cannot be decoded"),
        ("4.png", no_picture, r"4\.png: not an image"),
    ],
)
def test_an_unreadable_image(
    stage1: Stage1, name: str, damage: Callable[[Path], None], told: str
) -> None:
    path = stage1.data / "images" / name
    damage(path)
    error = stage1().error_line()
    assert re.search(told, error)
    assert str(path) in error
    assert "--on-error skip" in error
    said = stage1.ok("--on-error", "skip")
    assert "7 encoded, 0 of 8 were there, 1 failed" in said
    table = stage1.table
    assert len(table) == 7
    [(key, why)] = table.failed.items()
    assert key == image_key(path)
    assert str(stage1.data) not in why
    told_by = stage1._warm("info", "--cache", stage1.cache, "--json", module="vqa_cache")
    assert json.loads(told_by.stdout)[0]["failed"] == [
        {"key": key.hex(), "item": f"image images/{name} of jsonl/test", "error": why}
    ]
    assert f"  {path}: {why}" in said
    assert stage1.problems() == []
    # recorded, so not tried again, and nothing raises any more
    assert "0 encoded, 7 of 8 were there, 1 failed" in stage1.ok()


def test_what_was_committed_before_an_error_stays(stage1: Stage1) -> None:
    truncate(stage1.data / "images" / "7.jpg")
    assert stage1("--rows-per-shard", 3).error_line()
    assert len(stage1.table) == 6
    assert "1 encoded, 6 of 8 were there, 1 failed" in stage1.ok("--on-error", "skip")


def test_a_missing_image(stage1: Stage1) -> None:
    path = stage1.data / "images" / "2.png"
    good = path.read_bytes()
    path.unlink()
    error = stage1().error_line()
    assert str(path) in error
    assert "No such file" in error
    said = stage1.ok("--on-error", "skip")
    assert "1 left out" in said
    assert len(stage1.table) == 7
    assert stage1.table.failed == {}  # without bytes there is no key
    split = stage1.opened.split("jsonl/train")
    assert [skipped.id for skipped in split.skipped] == ["images/2.png"]
    assert split.image_positions.tolist().count(-1) == 1
    assert stage1.opened.examples("jsonl/train")["image_key"].isna().sum() == 1
    path.write_bytes(good)
    assert "1 encoded, 7 of 8 were there" in stage1.ok()
    split = stage1.opened.split("jsonl/train")
    assert split.skipped == ()
    assert split.image_positions.min() == 0


def test_a_mended_image_is_another_file(stage1: Stage1) -> None:
    path = stage1.data / "images" / "3.jpg"
    good = path.read_bytes()
    truncate(path)
    stage1.ok("--on-error", "skip")
    path.write_bytes(good)
    assert "1 encoded, 7 of 8 were there" in stage1.ok()
    assert stage1.table[image_key(path).hex()].isfinite().all()


def test_a_duplicate_id_and_a_missing_annotation(stage1: Stage1) -> None:
    path = stage1.data / "train.jsonl"
    lines = path.read_text().splitlines()
    entry = json.loads(lines[4])
    del entry["answer"]
    lines[4] = json.dumps(entry)
    lines[6] = lines[5]
    path.write_text("\n".join(lines))
    assert re.search(r"train\.jsonl:5: missing annotation", stage1().error_line())
    said = stage1.ok("--on-error", "skip")
    assert "2 left out" in said
    split = stage1.opened.split("jsonl/train")
    assert len(split) == 8
    assert [skipped.id for skipped in split.skipped] == [4, 5]


# ---------------------------------------------------------------- values that do not fit


def overflowing_weights(path: Path) -> Path:
    """A ResNet whose rows reach 40,000 for common pictures and over 65,504 for a white one."""
    import timm

    torch.manual_seed(0)
    state = timm.create_model("test_resnet").state_dict()
    for name in state:
        last = name.startswith(("layer4.0.bn2.", "layer4.0.downsample.2."))
        if last and name.endswith(("weight", "bias")):
            state[name] = state[name] * 1.3e5
    torch.save(state, path)
    return path


def test_an_overflow_names_the_item_and_the_remedy(stage1: Stage1, tmp_path: Path) -> None:
    white = stage1.data / "images" / "5.jpg"
    Image.fromarray(np.full((32, 32, 3), 255, np.uint8)).save(white)
    weights = overflowing_weights(tmp_path / "weights.pth")
    encoder = ("--image", f"timm:test_resnet:weights={weights}:size=32")
    error = stage1("--batch-size", 3, encoder=encoder).error_line()
    assert str(white) in error
    assert "does not fit in float16 (at most 65504)" in error
    assert "--dtype bf16" in error
    stage1.ok("--on-error", "skip", encoder=encoder)
    assert list(stage1.table.failed) == [image_key(white)]
    assert stage1.table.tensor().isfinite().all()
    stage1.ok("--dtype", "bf16", encoder=encoder)
    [wide] = [table for table in stage1.opened.tables.values() if table.dtype == "bfloat16"]
    assert len(wide) == 8
    assert wide[image_key(white).hex()].max() > 65504


def test_an_encoder_that_overflows_everywhere_is_one_line(stage1: Stage1, tmp_path: Path) -> None:
    """Its probe items do not fit either."""
    import timm

    torch.manual_seed(0)
    state = timm.create_model("test_resnet").state_dict()
    state |= {name: state[name] * 1e6 for name in ("bn1.weight", "layer4.0.bn2.weight")}
    torch.save(state, tmp_path / "weights.pth")
    encoder = ("--image", f"timm:test_resnet:weights={tmp_path / 'weights.pth'}:size=32")
    error = stage1(encoder=encoder).error_line()
    assert "float16" in error
    assert "--dtype bf16" in error
    assert "8 encoded" in stage1.ok("--dtype", "bf16", encoder=encoder)


# ---------------------------------------------------------------- retries


def test_retrying(stage1: Stage1, monkeypatch: pytest.MonkeyPatch) -> None:
    from precompute.pipeline import Request, precompute
    from precompute.progress import ConsoleReporter

    names = ("1.jpg", "5.jpg")
    for name in names:
        path = stage1.data / "images" / name
        path.write_bytes(path.read_bytes()[:-60])
    stage1.ok("--on-error", "skip")
    table = stage1.table
    assert len(table.failed) == 2
    assert "0 encoded, 6 of 8 were there, 2 failed" in stage1.ok(
        "--retry-failed", "--on-error", "skip"
    )
    assert len(stage1.table.shards) == len(table.shards)  # what failed again tells nothing new
    assert "cannot be decoded" in stage1("--retry-failed").error_line()
    shards = len(stage1.table.shards)
    # a decoder that is more patient than before
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    request = Request("jsonl", str(stage1.data), str(stage1.cache), image=(VIT,), retry_failed=True)
    [result] = precompute(request, ConsoleReporter(quiet=True))
    assert (result.encoded, result.present, result.failed) == (2, 6, 0)
    fresh = stage1.table
    assert fresh.failed == {}
    assert len(fresh) == len(fresh.tensor()) == 8
    assert len(fresh.shards) == shards + 1
    assert stage1.problems() == []
    assert "0 encoded, 8 of 8 were there" in stage1.ok("--retry-failed")
    assert len(stage1.table.shards) == shards + 1


def test_a_dry_run_plans_what_a_run_would(stage1: Stage1) -> None:
    truncate(stage1.data / "images" / "3.jpg")
    stage1.ok("--on-error", "skip")
    done = stage1("--dry-run", "--json")
    assert done.status == 0
    assert json.loads(done.stdout)["tables"][0]["missing"] == 0


# ---------------------------------------------------------------- repairs


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def delete(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "container"),
    [(flip, "hdf5"), (truncate, "hdf5"), (delete, "hdf5"), (flip, "zarr"), (delete, "zarr")],
)
def test_a_damaged_shard_is_made_again(
    stage1: Stage1, damage: Callable[[Path], None], container: str
) -> None:
    truncate(stage1.data / "images" / "3.jpg")
    stage1.ok("--on-error", "skip", "--rows-per-shard", 3, "--format", container)
    files = [path for path in stage1.table.folder.rglob("shards/**/*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    largest = max(files, key=lambda path: path.stat().st_size)
    rows = next((path for path in files if path.match("rows/c/0/0")), largest)
    damage(rows)
    assert any(str(rows) in line for line in stage1.problems())
    said = stage1.ok("--repair")
    assert "1 shards repaired" in said
    assert not re.search(r"^: ", said, re.MULTILINE)  # progress of no table
    assert {path: path.read_bytes() for path in files} == before
    assert stage1.problems() == []
    assert "repaired" not in stage1.ok("--repair")


def test_a_shard_folder_that_is_gone_is_made_again(stage1: Stage1) -> None:
    stage1.ok("--rows-per-shard", 3)
    shards = stage1.table.folder / "shards"
    before = {path.name: path.read_bytes() for path in shards.iterdir()}
    shutil.rmtree(shards)
    assert "3 shards repaired" in stage1.ok("--repair")
    assert {path.name: path.read_bytes() for path in shards.iterdir()} == before


@pytest.mark.parametrize("damage", [flip, truncate, delete])
def test_a_damaged_record_is_made_again(stage1: Stage1, damage: Callable[[Path], None]) -> None:
    stage1.ok("--rows-per-shard", 3)
    paths = sorted((stage1.table.folder / "records").iterdir())
    before = {path: path.read_bytes() for path in paths}
    damage(paths[1])
    assert stage1.problems() != []
    stage1.ok("--repair")
    assert stage1.problems() == []
    assert {path: path.read_bytes() for path in paths} == before


@pytest.mark.parametrize(
    ("name", "damage"), [("specs/*.json", flip), ("specs/*.json", delete), ("seal.json", flip)]
)
def test_a_damaged_index_is_made_again(
    stage1: Stage1, name: str, damage: Callable[[Path], None]
) -> None:
    stage1.ok()
    [path] = stage1.table.folder.glob(name)
    good = path.read_bytes()
    damage(path)
    stage1.ok("--repair")
    assert path.read_bytes() == good
    stage1.opened.find_table(VIT, "image")


@pytest.mark.parametrize("damage", [flip, delete])
def test_damaged_examples_are_made_again(stage1: Stage1, damage: Callable[[Path], None]) -> None:
    stage1.ok()
    folder = stage1.cache / "examples/jsonl/train"
    damage(folder / "000001.h5")
    stage1.ok("--repair")
    assert len(stage1.opened.examples("jsonl/train")) == 10
    current = current_record(folder)
    assert current is not None
    assert not any(f"train/{current.generation:06d}" in line for line in stage1.problems())


def test_a_repair_without_the_items_says_so(stage1: Stage1) -> None:
    stage1.ok()
    [shard] = (stage1.table.folder / "shards").iterdir()
    shard.unlink()
    error = stage1("--repair", "--limit", 2).error_line()
    assert re.search(r"is damaged and \d of its 8 items are not among those asked for", error)
    assert shard.stem in error


def test_a_repair_needs_no_item_that_has_no_row(stage1: Stage1) -> None:
    path = stage1.data / "images" / "3.jpg"
    good = path.read_bytes()
    truncate(path)
    stage1.ok("--on-error", "skip")
    [shard] = (stage1.table.folder / "shards").iterdir()
    before = shard.read_bytes()
    path.write_bytes(good)  # the bytes that failed are nowhere any more
    shard.unlink()
    assert "1 shards repaired" in stage1.ok("--repair")
    assert shard.read_bytes() == before


def test_a_repair_batches_as_the_first_run_did(stage1: Stage1, tmp_path: Path) -> None:
    """An item whose output was not finite had its place in a batch; without it every later batch
    is another, and the last bits of its rows with it."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    folder = save_bert(tmp_path / "bert")
    state = load_file(folder / "model.safetensors")
    token = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("zebra")
    name = next(name for name in state if name.endswith("word_embeddings.weight"))
    state[name][token] = float("nan")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    lines = [
        {
            "image": "images/0.png",
            "question": "word " * (1 + n * 3 % 11)
            + ("zebra " if n in (5, 6, 11, 17) else "")
            + str(n),
            "answer": "x",
        }
        for n in range(60)
    ]
    (stage1.data / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    encoder = ("--text", f"dir:{folder}")
    how = ("--dtype", "fp32", "--splits", "train")
    stage1.ok(*how, "--batch-size", 5, "--on-error", "skip", encoder=encoder)
    assert len(stage1.table.failed) == 4
    [shard] = (stage1.table.folder / "shards").iterdir()
    before = shard.read_bytes()
    shard.unlink()
    assert "1 shards repaired" in stage1.ok(*how, "--repair", encoder=encoder)
    assert shard.read_bytes() == before


def test_text_tables_are_repaired(stage1: Stage1) -> None:
    stage1.ok("--rows-per-shard", 4, encoder=("--text", BERT))
    for shard in (stage1.table.folder / "shards").iterdir():
        flip(shard)
    assert "4 shards repaired" in stage1.ok("--repair", encoder=("--text", BERT))
    assert stage1.problems() == []


def test_a_file_of_the_same_size_and_time_with_other_content_is_hashed_again(
    stage1: Stage1,
) -> None:
    """The time of its last change of any kind tells it."""
    stage1.ok()
    picture = min((stage1.data / "images").glob("*.png"))
    before, content = picture.stat(), bytearray(picture.read_bytes())
    content[-1] ^= 1  # of the last chunk's checksum, which Pillow does not look at
    with picture.open("r+b") as file:
        file.write(content)
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    other = ("--image", f"{VIT}:tap=mean")
    stage1.ok(encoder=other)
    assert stage1.problems() == []
    tables = stage1.opened.tables
    [mean] = [table for name, table in tables.items() if "mean" in name]
    assert mean.rows([image_key(picture)]).isfinite().all()
