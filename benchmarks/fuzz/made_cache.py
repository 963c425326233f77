"""A small cache with everything in it that a cache can hold, made without an encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vqa_cache.arrays import text_arrays
from vqa_cache.cache import Cache, create_cache
from vqa_cache.containers import Container
from vqa_cache.examples import Columns, write_split
from vqa_cache.identity import add_spec, begin_table
from vqa_cache.keys import pack_keys, text_key
from vqa_cache.records.split import Skipped
from vqa_cache.records.table import BatchPlan, Canaries, Identity, Modality, TableSettings
from vqa_cache.shard import ShardWriter, shard_name
from vqa_cache.spec import EncoderSpec
from vqa_cache.table import Table
from vqa_cache.withdrawals import withdraw

_TEXTS = ["is it?", "größer", "日本", "", "yes", "no"]


def make_cache(root: Path) -> Cache:
    """Tables of images and texts, pooled and ragged, in both containers, with failures, seals and a
    withdrawal; a split with several images an example."""
    cache = create_cache(root)
    image = _table(cache, "image", "hdf5", ragged=False)
    withdraw(image.folder, image.id, [bytes([1]) * 16], "asked to")
    for container in ("hdf5", "zarr"):
        _table(cache, "text", container, ragged=True)
    _table(cache, "image", "zarr", ragged=False)
    write_split(
        root / "examples" / "d" / "train",
        _columns(),
        examples=3,
        annotated=True,
        limit=None,
        skipped=[Skipped("image", "gone.png", "missing"), Skipped("example", 7, "no answer")],
    )
    return cache


def _table(cache: Cache, modality: Modality, container: Container, *, ragged: bool) -> Table:
    spec = EncoderSpec("timm", "made-up", None, f"{container}{'-ragged' if ragged else ''}")
    identity = Identity(
        modality=modality, library="made", model="made-up", revision=None, weights="none",
        architecture={"layers": [1, 2]}, preprocessing={"size": "224"}, tap=str(spec.tap),
        pooling="none", dtype="float16",
    )  # fmt: skip
    settings = TableSettings(
        row_shape=(2,), ragged=ragged, container=container, rows_per_shard=4, precision="fp32",
        batch_plan=BatchPlan("in-order", 2), threads=1, canaries=Canaries(1, b"\0" * 4, 1.0, 1.0),
        environment={"torch": "2"},
    )  # fmt: skip
    table = begin_table(cache, identity, "made-up", spec, settings)
    add_spec(table, spec)
    for part in (range(4), range(4, 6)):
        texts = [_TEXTS[n] for n in part] if modality == "text" else None
        keys = list(map(text_key, texts)) if texts else [bytes([n]) * 16 for n in part]
        writer = ShardWriter(table.folder, table.record, keys, texts, shard_name(table.id, keys))
        lengths = [n + 1 for n in range(len(keys))] if ragged else None
        rows = np.ones((sum(lengths) if lengths else len(keys), 2), np.float16)
        writer.write(list(range(len(keys))), rows, lengths)
        writer.failed[1] = "broken"
        writer.commit()
    table.seal()
    return table


def _columns() -> Columns:
    return {
        "question_id": np.arange(3, dtype=np.int64),
        **text_arrays("image_id", ["a", "b", "c"]),
        "image_keys": pack_keys([bytes([n]) * 16 for n in range(3)]),
        "image_positions": np.array([0, 1, 2, -1], np.int32),
        "image_offsets": np.array([0, 1, 3, 4], np.int64),
        "question_keys": pack_keys(list(map(text_key, _TEXTS[:2]))),
        "question_positions": np.array([0, 1, 1], np.int32),
        **text_arrays("question_text", _TEXTS[:2]),
        **text_arrays("answer_text", _TEXTS[4:]),
        "answer": np.array([0, 1, -1], np.int32),
        "answers": np.array([0, 1, 1], np.int32),
        "answers_offsets": np.array([0, 1, 3, 3], np.int64),
        "question_type": np.array([0, -1, -1], np.int32),
        "answer_type": np.array([-1, -1, -1], np.int32),
        **text_arrays("question_type_text", ["is"]),
        **text_arrays("answer_type_text", []),
    }
