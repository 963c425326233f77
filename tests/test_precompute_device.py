"""Stage 1 on a device other than the CPU: tests/stand_in_device.py, in a process of its own."""

from __future__ import annotations

import importlib
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stand_in_device
import torch
from conftest import BERT, RESNET, TOKENIZER, VIT, write_dataset, write_images

import vqa_cache
from precompute.pipeline import Request, precompute
from precompute.progress import ConsoleReporter
from precompute.tables import EncoderSettings
from vqa_cache.records.table import BatchPlan
from vqa_cache.spec import Modality

TEXTS = ["is it red?", "how many small yellow birds sit on the fence?", "word " * 40]
TEXT_TOWER = {"context_length": 12, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2}
VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}


def prepare_process(models: str) -> None:
    from precompute.torchvision_operators import declare_missing_operators

    declare_missing_operators()  # before open_clip is imported
    importlib.import_module("open_clip").add_model_config(models)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def process(
    libraries: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessPoolExecutor]:
    models = tmp_path_factory.mktemp("models")
    model = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT_TOWER}
    (models / "small-clip.json").write_text(json.dumps(model))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, prepare_process, (str(models),)) as pool:
        yield pool


@pytest.mark.parametrize(
    ("spec", "modality"),
    [
        (RESNET, "image"),
        (f"{RESNET}:tap=layer2:grid=2", "image"),
        ("timm:test_vit:random=0:tap=tokens", "image"),
        (f"{VIT}:tap=pooler", "image"),
        (f"{VIT}:tap=mean:grid=2", "image"),
        (BERT, "text"),
        (f"{BERT}:tap=tokens", "text"),
        (f"{BERT}:tap=encoder.layer.0", "text"),
        (f"st:{TOKENIZER}", "text"),
        (f"st:{TOKENIZER}:tap=tokens", "text"),
        ("open_clip:small-clip:random=0", "image"),
        ("open_clip:small-clip:random=0", "text"),
        ("open_clip:small-clip:random=0:tap=tokens", "text"),
    ],
)
def test_every_family_computes_where_it_is_told(
    process: ProcessPoolExecutor, tmp_path: Path, spec: str, modality: Modality
) -> None:
    items = TEXTS
    if modality == "image":
        items = [str(tmp_path / "images" / name) for name in write_images(tmp_path / "images", 3)]
    on_cpu, on_device = process.submit(stand_in_device.rows, spec, modality, items).result()
    assert on_cpu.dtype == np.float32
    np.testing.assert_allclose(on_device, on_cpu, atol=1e-5)  # its attention sums in another order


def fill(process: ProcessPoolExecutor, cache: Path, root: Path, **request: Any) -> list[str]:
    """Run stage 1 on the stand-in; what it says."""
    job = process.submit(stand_in_device.fill, str(cache), str(root), request)
    said: list[str] = job.result()
    return said


def test_a_table_made_there_is_that_of_the_cpu(
    process: ProcessPoolExecutor, tmp_path: Path
) -> None:
    root = write_dataset(tmp_path / "data", images=40, train=80, test=10)
    there, here = tmp_path / "there", tmp_path / "here"
    settings = EncoderSettings(dtype="fp32", precision="fp32", rows_per_shard=32)
    wanted: dict[str, Any] = {"image": (RESNET,), "text": (BERT,), "settings": settings}
    said = fill(process, there, root, **wanted)
    assert any("items/s on standin:0; " in line for line in said)
    precompute(Request("jsonl", str(root), str(here), **wanted), ConsoleReporter(quiet=True))
    for name, table in vqa_cache.open(there).tables.items():
        other = vqa_cache.open(here).tables[name]
        assert table.record.device == "standin:0"
        assert other.record.device == "cpu"
        assert table.record.batch_plan.size == 16 * other.record.batch_plan.size
        np.testing.assert_array_equal(table.keys, other.keys)
        np.testing.assert_allclose(table.tensor(), other.tensor(), atol=1e-5)


def test_a_table_begun_there_goes_on_here(process: ProcessPoolExecutor, tmp_path: Path) -> None:
    root, cache = write_dataset(tmp_path / "data"), tmp_path / "cache"
    settings = EncoderSettings(precision="fp32")
    fill(process, cache, root, image=(VIT,), settings=settings, splits=("test",))
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # a GPU does not care for the number of threads
    try:
        [result] = precompute(
            Request("jsonl", str(root), str(cache), image=(VIT,)), ConsoleReporter(quiet=True)
        )
    finally:
        torch.set_num_threads(before)
    assert (result.present, result.encoded) == (6, 4)


def test_a_batch_that_does_not_fit_is_halved(process: ProcessPoolExecutor, tmp_path: Path) -> None:
    root, cache = write_dataset(tmp_path / "data"), tmp_path / "cache"
    wanted: dict[str, Any] = {"image": (RESNET,), "settings": EncoderSettings(precision="fp32")}
    fill(process, cache, root, **wanted, memory=100)
    (table,) = vqa_cache.open(cache).tables.values()
    assert table.record.batch_plan == BatchPlan("in-order", 64)
    assert len(table.keys) == 10


def test_no_memory_is_one_line(process: ProcessPoolExecutor, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data")
    asked: dict[str, Any] = {
        "image": (RESNET,),
        "settings": EncoderSettings(precision="fp32", batch_size=9),
    }
    line = (
        f"encoder {RESNET}:tap=pooled: standin:0 has no memory for a batch of 9; free its memory, "
        "begin the table with a smaller --batch-size, or encode on the CPU: "
        "CUDA_VISIBLE_DEVICES= in front of the command"
    )
    assert fill(process, tmp_path / "cache", root, **asked, memory=8)[-1] == line
    assert not vqa_cache.open(tmp_path / "cache").tables
    fill(process, tmp_path / "cache", root, **asked, splits=("test",))
    said = fill(process, tmp_path / "cache", root, **asked, splits=("train",), memory=3)
    assert said[-1] == line.replace("a batch of 9", "a batch of 4"), "the canaries'"
