"""A small real cache, built with vqa_cache alone, that the tests of train share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import stored
from rich.console import Console

import vqa_cache
from train.config.files import load_experiment
from train.trainer import train as train_run
from vqa_cache.arrays import text_arrays
from vqa_cache.cache import Cache, create_cache
from vqa_cache.examples import write_split
from vqa_cache.identity import add_spec, begin_table
from vqa_cache.keys import pack_keys
from vqa_cache.records.table import BatchPlan, Canaries, Identity, TableSettings
from vqa_cache.shard import ShardWriter, shard_name
from vqa_cache.spec import parse_spec

IMAGE = "timm:resnet18:random=0:tap=layer2:grid=2"
TEXT = "pkg:tiny/model"
FEATURES = [f"features.image={IMAGE}", f"features.text={TEXT}", f"features.answer_text={TEXT}"]
COLOURS = ("red", "green", "blue", "yellow")
QUESTIONS = ("what colour is it?", *(f"is it {colour}?" for colour in COLOURS))
QUIET = Console(quiet=True)
NO_ROW, FAILED = "no row", "failed"


@dataclass(frozen=True)
class Item:
    """One example of the small dataset; its images are numbers, its answers texts."""

    images: tuple[int, ...]
    question: str
    answer: str | None
    answers: tuple[str, ...] = ()
    question_type: str | None = None
    answer_type: str | None = None


@dataclass
class SmallDataset:
    """Examples by split; `broken` says which images have no row, or failed."""

    splits: dict[str, list[Item]]
    broken: dict[int, str] = field(default_factory=dict)
    unlabelled: tuple[str, ...] = ()
    without_texts: tuple[str, ...] = ()
    width: int = 4


def colour_of(image: int) -> int:
    """Every image has one colour."""
    return int(hashlib.sha256(f"colour {image}".encode()).digest()[0]) % len(COLOURS)


def items_of(images: Sequence[int]) -> list[Item]:
    """Five questions about each image."""
    items = []
    for image in images:
        colour = COLOURS[colour_of(image)]
        for question in QUESTIONS:
            open_ = question == QUESTIONS[0]
            answer = colour if open_ else ("yes" if colour in question else "no")
            kind = "other" if open_ else "yes/no"
            items.append(Item((image,), question, answer, (answer,), question[:4], kind))
    return items


def small_dataset(train: int = 40, test: int = 12) -> SmallDataset:
    """Train and test of different images."""
    return SmallDataset(
        {"train": items_of(range(train)), "test": items_of(range(1000, 1000 + test))}
    )


def image_key_of(image: int) -> bytes:
    """A made-up content key."""
    return hashlib.sha256(f"image {image}".encode()).digest()[:16]


def image_row(image: int, width: int) -> np.ndarray:
    """A row [2, width] that holds the colour, beside noise."""
    generator = np.random.default_rng(image)
    row = generator.normal(0, 0.1, (2, width))
    row[0, colour_of(image) % width] += 1
    return row.astype(np.float16)


def text_row(text: str) -> np.ndarray:
    """A row [8] drawn from the text."""
    seed = int.from_bytes(vqa_cache.text_key(text)[:4], "little")
    return (np.random.default_rng(seed).normal(0, 1, 8) + 2).astype(np.float16)


def build_cache(path: Path, dataset: SmallDataset, name: str = "tiny") -> Cache:
    """Write the dataset's examples and both its tables into a cache."""
    cache = create_cache(path)
    images = sorted({i for items in dataset.splits.values() for item in items for i in item.images})
    planned = [i for i in images if dataset.broken.get(i) != NO_ROW]
    rows = [image_row(i, dataset.width) for i in planned]
    failed = {n for n, i in enumerate(planned) if dataset.broken.get(i) == FAILED}
    write_table(cache, IMAGE, "image", [image_key_of(i) for i in planned], rows, failed=failed)
    texts = list(
        dict.fromkeys(
            text
            for items in dataset.splits.values()
            for item in items
            for text in (item.question, item.answer, *item.answers, "other")
            if text is not None and text not in dataset.without_texts
        )
    )
    keys = [vqa_cache.text_key(text) for text in texts]
    write_table(cache, TEXT, "text", keys, [text_row(text) for text in texts], texts=texts)
    for split, items in dataset.splits.items():
        write_items(path / "examples" / name / split, items, split not in dataset.unlabelled)
    return vqa_cache.open(path)


def write_table(
    cache: Cache,
    spec_text: str,
    modality: Any,
    keys: list[bytes],
    rows: list[np.ndarray],
    *,
    texts: list[str] | None = None,
    failed: set[int] | None = None,
    ragged: bool = False,
    dtype: Any = "float16",
) -> None:
    """Commit all rows as one shard of a new table; of a ragged one, rows are [tokens, width]."""
    spec = parse_spec(spec_text).with_default_tap(modality)
    identity = Identity(
        modality=modality,
        library="test",
        model=spec.model,
        revision=None,
        weights="sha256:0",
        architecture={},
        preprocessing={},
        tap=str(spec.tap),
        pooling="none",
        dtype=dtype,
    )
    settings = TableSettings(
        row_shape=rows[0].shape[1:] if ragged else rows[0].shape,
        ragged=ragged,
        container="hdf5",
        rows_per_shard=100_000,
        precision="fp32",
        batch_plan=BatchPlan("in-order", 16),
        threads=1,
        canaries=Canaries(0, b"", None, None),
        environment={},
    )
    table = begin_table(cache, identity, spec.model, spec, settings)
    add_spec(table, spec)
    writer = ShardWriter(table.folder, table.record, keys, texts, shard_name(table.id, keys))
    for position, row in enumerate(rows):
        if position in (failed or ()):
            writer.failed[position] = "truncated JPEG"
        else:
            kept = stored(row if ragged else row[None], dtype)
            writer.write([position], kept, [len(row)] if ragged else None)
    writer.commit()


def write_items(folder: Path, items: list[Item], annotated: bool, limit: int | None = None) -> None:
    """Commit the columns of a split."""

    def coded(values: Sequence[str | None]) -> tuple[np.ndarray, list[str]]:
        names = list(dict.fromkeys(value for value in values if value is not None))
        code = {name: number for number, name in enumerate(names)}
        return np.array([-1 if v is None else code[v] for v in values], np.int32), names

    images = list(dict.fromkeys(i for item in items for i in item.images))
    place = {image: number for number, image in enumerate(images)}
    question, questions = coded([item.question for item in items])
    every = [answer for item in items for answer in item.answers]
    codes, answer_texts = coded([*(item.answer for item in items), *every])
    question_type, question_types = coded([item.question_type for item in items])
    answer_type, answer_types = coded([item.answer_type for item in items])
    columns = {
        "question_id": np.arange(len(items), dtype=np.int64) + 100,
        "image_id": np.array([item.images[0] for item in items], np.int64),
        "image_keys": pack_keys([image_key_of(i) for i in images]),
        "image_positions": np.array([place[i] for item in items for i in item.images], np.int32),
        "question_keys": pack_keys([vqa_cache.text_key(text) for text in questions]),
        "question_positions": question,
        "answer": codes[: len(items)],
        "answers": codes[len(items) :],
        "answers_offsets": np.cumsum([0, *(len(item.answers) for item in items)], dtype=np.int64),
        "question_type": question_type,
        "answer_type": answer_type,
        **text_arrays("question_text", questions),
        **text_arrays("answer_text", answer_texts),
        **text_arrays("question_type_text", question_types),
        **text_arrays("answer_type_text", answer_types),
    }
    if any(len(item.images) > 1 for item in items):
        counts = [len(item.images) for item in items]
        columns["image_offsets"] = np.cumsum([0, *counts], dtype=np.int64)
    said: dict[str, Any] = {"annotated": annotated, "limit": limit, "skipped": []}
    write_split(folder, columns, examples=len(items), **said)


def write_experiment(folder: Path, name: str = "tiny_mlp", **sections: str) -> Path:
    """A small experiment file; a section's text replaces the default one."""
    text = {
        "features": (
            f'dataset = "tiny"\nimage = "{IMAGE}"\ntext = "{TEXT}"\nanswer_text = "{TEXT}"'
        ),
        "head": 'name = "mlp"\nhidden = [16]\ndropout = 0.1',
        "optimizer": 'name = "adamw"\nlr = 1e-2',
        "train": 'epochs = 3\nbatch_size = 16\nprecision = "fp32"',  # the same on every machine
        **sections,
    }
    path = folder / f"{name}.toml"
    path.write_text(
        "# a test\n" + "".join(f"[{section}]\n{body}\n" for section, body in text.items())
    )
    return path


def run_of(folder: Path, cache: Path, *overrides: str, new: bool = False, **sections: str) -> Path:
    """A finished run, without baselines unless `baselines=on` is among the overrides: they would
    be two thirds of the time."""
    path = write_experiment(folder, **sections)
    experiment = load_experiment(str(path), ["baselines=off", *overrides])
    return train_run(experiment, cache=cache, runs=folder / "runs", console=QUIET, new=new)


def result_of(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return result


def digests(run: Path) -> dict[str, str]:
    """Every file but those that hold times or a process: result, events, lock."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file()
        and path.name not in ("result.json", "lock")
        and not path.name.startswith("events.")
    }


def test_the_small_cache_opens_and_gives_its_rows(tmp_path: Path) -> None:
    cache = build_cache(tmp_path / "cache", small_dataset())
    assert cache.splits == ["tiny/test", "tiny/train"]
    table = cache.find_table(IMAGE, "image")
    assert table.row_shape == (2, 4)
    assert torch.equal(table[image_key_of(3)], torch.from_numpy(image_row(3, 4)))
    assert len(cache.split("tiny/train")) == 200


@pytest.mark.parametrize("state", [NO_ROW, FAILED])
def test_a_broken_image_has_no_row(tmp_path: Path, state: str) -> None:
    dataset = replace(small_dataset(), broken={3: state})
    table = build_cache(tmp_path / "cache", dataset).find_table(IMAGE, "image")
    assert table.row_index(pack_keys([image_key_of(3)])).tolist() == [-1]
    assert (image_key_of(3) in table.failed) == (state == FAILED)
