"""The main path: what is encoded, when nothing is, growth, and what a dry run tells."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BERT, RESNET, VIT, write_dataset, write_images

import vqa_cache
from benchmarks.measuring.warm import ROOT, Warm
from precompute import encoders
from precompute.estimate import estimate
from precompute.pipeline import Request, TableResult, precompute
from precompute.tables import EncoderSettings
from vqa_cache.keys import image_key
from vqa_cache.records.table import BatchPlan
from vqa_cache.table import Table

pytestmark = pytest.mark.usefixtures("libraries")


class Told:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.begun: list[tuple[str, int, int]] = []
        self.advanced = 0

    def say(self, line: str) -> None:
        self.lines.append(line)

    def begin(self, table: str, total: int, done: int) -> None:
        self.begun.append((table, total, done))

    def advance(self, items: int) -> None:
        self.advanced += items

    def end(self) -> None:
        pass


def run(
    root: Path, cache: Path, *, told: Told | None = None, shard: int | None = None, **how: Any
) -> list[TableResult]:
    settings = EncoderSettings(precision="fp32", rows_per_shard=shard)
    how = {"image": (VIT,), "text": (BERT,), "settings": settings} | how
    return precompute(Request("jsonl", str(root), str(cache), **how), told or Told())


def counts(results: list[TableResult]) -> list[tuple[int, int, int]]:
    return [(one.wanted, one.present, one.encoded) for one in results]


@pytest.fixture(scope="module")
def made(dataset: Path, libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cache that no test changes."""
    cache = tmp_path_factory.mktemp("made") / "cache"
    run(dataset, cache, answer_text=(BERT,))
    return cache


@pytest.fixture
def cache(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "cache")


def test_a_row_is_what_the_encoder_gives(made: Path, dataset: Path) -> None:
    from vqa_cache.spec import parse_spec

    cache = vqa_cache.open(made)
    frame = cache.examples("jsonl/train")
    images = cache.find_table(VIT, "image")
    encoder = encoders.load_encoder(parse_spec(VIT), "image")
    for name in ("0.png", "7.jpg"):
        path = dataset / "images" / name
        row = images[image_key(path).hex()]
        with torch.inference_mode():
            expected = encoder.encode([encoder.prepare(str(path))])[0]
        torch.testing.assert_close(row.float(), expected, atol=2e-3, rtol=2e-3)
    texts = cache.find_table(BERT, "text")
    encoder = encoders.load_encoder(parse_spec(BERT), "text")
    for text in (frame["question"][3], "yes", "a 4", "other"):
        with torch.inference_mode():
            expected = encoder.encode([encoder.prepare(text)])[0]
        torch.testing.assert_close(texts[text].float(), expected, atol=2e-3, rtol=2e-3)
    assert set(frame["image_key"]) <= {key.tobytes().hex() for key in images.keys}


def test_each_distinct_item_once(made: Path) -> None:
    cache = vqa_cache.open(made)
    images, texts = cache.find_table(VIT, "image"), cache.find_table(BERT, "text")
    assert len(images) == 10
    # 26 questions, "yes", "no", 13 answers "a N" that normalise to "N", and "other"
    assert sorted(texts.texts())[:3] == ["0", "10", "12"]
    assert len(texts) == 26 + 2 + 13 + 13 + 1
    assert cache.examples("jsonl/train")["question_id"].tolist() == list(range(20))


def test_the_second_run_encodes_nothing_and_loads_no_encoder(
    cache: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.*") if path.is_file()}

    def never(*_: object) -> None:
        raise AssertionError("an encoder was loaded")

    monkeypatch.setattr(encoders, "load_encoder", never)
    results = run(dataset, cache, answer_text=(BERT,))
    assert counts(results) == [(10, 10, 0), (55, 55, 0)]
    after = {path: path.stat().st_mtime_ns for path in cache.rglob("*.*") if path.is_file()}
    before.pop(cache / "memo.sqlite")
    after.pop(cache / "memo.sqlite")
    assert after == before


def test_the_second_run_imports_no_library_of_models(cache: Path, dataset: Path) -> None:
    arguments = [
        "--name", "jsonl", "--dataset", "jsonl", "--root", str(dataset), "--cache", str(cache),
        "--image", VIT, "--text", BERT,
    ]  # fmt: skip
    program = (
        "import sys\nfrom precompute.__main__ import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        "print(*(name for name in sys.modules if '.' not in name))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "10 of 10 were there" in done.stderr
    heavy = {"torch", "transformers", "timm", "torchvision", "tokenizers"}
    assert heavy & set(done.stdout.split()) == set()


def test_growth_encodes_only_what_is_new(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", images=6, train=8, test=4)
    cache = tmp_path / "cache"
    assert counts(run(root, cache, shard=4)) == [(6, 0, 6), (12, 0, 12)]
    before = {path: path.read_bytes() for path in cache.rglob("records/*.json")}
    lines = (root / "train.jsonl").read_text().splitlines()
    write_images(root / "more", 2, seed=9)
    lines[:0] = [
        json.dumps({"image": f"more/{n}.{kind}", "question": f"new {n}?", "answer": "x"})
        for n, kind in enumerate(("png", "jpg"))
    ]
    (root / "train.jsonl").write_text("\n".join(lines))
    told = Told()
    assert counts(run(root, cache, told=told)) == [(8, 6, 2), (14, 12, 2)]
    assert [(total, done) for _, total, done in told.begun] == [(8, 6), (14, 12)]
    assert told.advanced == 4
    assert {path: path.read_bytes() for path in before} == before
    opened = vqa_cache.open(cache)
    assert len(opened.examples("jsonl/train")) == 10
    table = opened.find_table(BERT, "text")
    assert len(table) == 14
    assert len(table.shards) == 4
    frame = opened.examples("jsonl/train")
    assert table.rows(frame["question"].tolist()).shape == (10, 32)


def test_a_shared_item_of_another_dataset_is_there_already(tmp_path: Path, cache: Path) -> None:
    other = write_dataset(tmp_path / "data", images=3, train=3, test=1)
    assert counts(run(other, cache, name="other")) == [(3, 3, 0), (4, 4, 0)]


def test_limit_and_splits(dataset: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    results = run(dataset, cache, limit=4, splits=("test",), image=())
    assert counts(results) == [(4, 0, 4)]
    assert vqa_cache.open(cache).splits == ["jsonl/test"]
    assert vqa_cache.open(cache).split("jsonl/test").limit == 4
    assert counts(run(dataset, cache, limit=4, image=())) == [(8, 4, 4)]
    assert counts(run(dataset, cache, image=())) == [(26, 8, 18)]
    split = vqa_cache.open(cache).split("jsonl/test")
    assert (len(split), split.limit) == (6, None)


def test_the_order_of_the_splits_does_not_change_a_shard_begun(
    dataset: Path, tmp_path: Path
) -> None:
    run(dataset, tmp_path / "cache", image=())
    assert counts(run(dataset, tmp_path / "cache", image=(), splits=("test", "train"))) == [
        (26, 26, 0)
    ]


def test_several_encoders_each_have_a_table(dataset: Path, tmp_path: Path) -> None:
    results = run(
        dataset, tmp_path / "cache", image=(VIT, RESNET, VIT), text=(BERT, f"{BERT}:tap=cls")
    )
    assert len({one.table for one in results}) == len(results) == 4


def test_answers_alone(dataset: Path, tmp_path: Path) -> None:
    [result] = run(dataset, tmp_path / "cache", image=(), text=(), answer_text=(BERT,))
    assert result.wanted == 2 + 13 + 13 + 1
    table = vqa_cache.open(tmp_path / "cache").find_table(BERT, "text")
    assert {"yes", "other", "a 2", "2"} <= set(table.texts())


def test_thumbnails_are_small_pictures(made: Path, dataset: Path) -> None:
    from PIL import Image

    cache = vqa_cache.open(made)
    path = cache.thumbnail(image_key(dataset / "images" / "0.png").hex())
    assert path is not None
    with Image.open(path) as picture:
        assert picture.format == "JPEG"
        assert max(picture.size) <= 96
    assert cache.thumbnail("0" * 32) is None


@pytest.mark.parametrize("dtype", ["fp16", "fp32", "bf16"])
@pytest.mark.parametrize("container", ["hdf5", "zarr"])
def test_stored_types_and_containers_hold_the_same_rows(
    dataset: Path, tmp_path: Path, dtype: Any, container: Any
) -> None:
    settings = EncoderSettings(dtype, "fp32", container=container, rows_per_shard=3)
    run(dataset, tmp_path / "cache", text=(), settings=settings)
    exact = EncoderSettings("fp32", "fp32")
    run(dataset, tmp_path / "exact", text=(), settings=exact)
    table = vqa_cache.open(tmp_path / "cache").find_table(VIT, "image")
    expected = vqa_cache.open(tmp_path / "exact").find_table(VIT, "image")
    keys = [key.tobytes() for key in expected.keys]
    assert len(table.shards) == 4
    want = expected.rows(keys).to(table.tensor().dtype)
    error = (table.rows(keys).float() - want.float()).abs().max()
    assert error < 1e-5 if dtype == "fp32" else error < 0.02


def test_the_record_of_a_table(made: Path) -> None:
    table = vqa_cache.open(made).find_table(VIT, "image")
    record = table.record
    assert record.precision == "fp32"
    assert record.rows_per_shard == 1024
    assert record.batch_plan == BatchPlan("in-order", 16)
    assert record.threads == torch.get_num_threads()
    assert record.canaries.cosine_worst > 0.9999
    assert record.environment["torch"] == torch.__version__
    assert record.identity.preprocessing["backend"].startswith("Pillow ")
    assert record.identity.architecture["hidden_act"] == "gelu"
    assert vqa_cache.open(made).find_table(BERT, "text").record.rows_per_shard == 16384


# ---------------------------------------------------------------- the command


def common(dataset: Path, cache: Path) -> tuple[object, ...]:
    return (
        "--dataset",
        "jsonl",
        "--root",
        dataset,
        "--cache",
        cache,
        "--image",
        VIT,
        "--text",
        BERT,
    )


def test_a_dry_run_writes_nothing(warm: Warm, dataset: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    done = warm(*common(dataset, cache), "--dry-run", "--json")
    assert done.status == 0, done.stderr
    assert not cache.exists()
    assert list(tmp_path.iterdir()) == []
    image, text = json.loads(done.stdout)["tables"]
    assert (image["wanted"], image["missing"], image["bytes"]) == (10, 10, 10 * 32 * 2)
    assert (text["wanted"], text["missing"], text["bytes"]) == (26, 26, 26 * 32 * 2)
    assert image["seconds"] >= 0
    run(dataset, cache)
    assert set(vqa_cache.open(cache).tables) == {image["table"], text["table"]}
    before = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    done = warm(*common(dataset, cache), "--dry-run")
    assert done.stdout.count("0 of ") == 2
    assert {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()} == before


def test_json_is_one_object_and_nothing_else(warm: Warm, dataset: Path, tmp_path: Path) -> None:
    done = warm(*common(dataset, tmp_path / "cache"), "--precision", "fp32", "--json")
    assert done.status == 0
    image, text = json.loads(done.stdout)["tables"]
    assert image == {
        "table": image["table"], "wanted": 10, "present": 0, "encoded": 10, "failed": 0,
        "repaired": 0, "truncated": 0, "failures": [],
    }  # fmt: skip
    assert text["encoded"] == 26
    assert done.stderr == ""


def test_what_is_said(warm: Warm, dataset: Path, tmp_path: Path) -> None:
    first = warm(*common(dataset, tmp_path / "cache"), "--precision", "fp32")
    assert first.stdout == ""
    assert "UNTRAINED" in first.stderr
    assert "/train: 20 examples, 10 images, 20 distinct questions" in first.stderr
    assert "10 encoded, 0 of 10 were there" in first.stderr
    second = warm(*common(dataset, tmp_path / "cache"), "--limit", 3)
    assert "0 encoded, 6 of 6 were there" in second.stderr


def test_for_an_experiment(warm: Warm, dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'[features]\ndataset = "jsonl"\nimage = "{RESNET}"\ntext = "{BERT}"\n')
    done = warm(
        "--for", path, f"features.image={VIT}", "--root", dataset, "--cache", tmp_path / "cache",
        "--precision", "fp32", "--limit", 2,
    )  # fmt: skip
    assert done.status == 0, done.stderr
    names = list(vqa_cache.open(tmp_path / "cache").tables)
    assert [name.split("/")[1] for name in names] == ["transformers.vit", "transformers.bert"]


def test_two_writers_at_once(warm: Warm, dataset: Path, tmp_path: Path) -> None:
    from vqa_cache.cache import create_cache

    cache = tmp_path / "cache"
    create_cache(cache)
    how = (*common(dataset, cache), "--precision", "fp32", "--rows-per-shard", 4)
    for done in [started.wait() for started in [warm.start(*how) for _ in range(3)]]:
        assert done.status == 0, done.stderr
    warm(*common(dataset, tmp_path / "alone"), "--precision", "fp32", "--rows-per-shard", 4)
    for pattern in ("tables/**/*.json", "tables/**/*.h5", "examples/**/*"):
        here = {
            str(p.relative_to(cache)): p.read_bytes() for p in cache.glob(pattern) if p.is_file()
        }
        alone = tmp_path / "alone"
        there = {
            str(p.relative_to(alone)): p.read_bytes() for p in alone.glob(pattern) if p.is_file()
        }
        assert here == there
        assert here


def test_the_seal_is_up_to_date(made: Path) -> None:
    for table in vqa_cache.open(made).tables.values():
        seal = json.loads((table.folder / "seal.json").read_bytes())
        assert list(seal["records"]) == sorted(p.stem for p in (table.folder / "records").iterdir())
        assert len(Table(table.folder)) == len(table)


def test_a_dry_run_does_not_hash_images_that_a_run_has_hashed(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request("jsonl", str(dataset), str(tmp_path / "cache"), image=(RESNET,))
    precompute(request, Told())
    hashed: list[object] = []
    monkeypatch.setattr("precompute.items.open_member", hashed.append)
    [found] = estimate(request)
    assert (found.missing, hashed) == (0, [])
