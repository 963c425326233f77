"""A cache in which every example has a question of its own: nothing to deduplicate.

It is sorted by answer, the worst order for a shuffle that does not see all of it at once. Written
shard after shard, so its size is bounded by the disk alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.inputs.scale_cache import (
    IMAGE,
    TEXT,
    WIDTH,
    AroundCentres,
    write_examples,
    write_table,
    zipf,
)
from vqa_cache.cache import Cache, create_cache
from vqa_cache.keys import text_key

DATASET = "flat"
KINDS = 4  # of questions to an answer, on average


@dataclass(frozen=True)
class FlatSizes:
    """How large the cache is.

    Attributes:
        distance: of the questions' centres, in units of the noise: how well answers can be told.
    """

    train: int
    val: int
    images: int
    answers: int
    distance: float = 0.35

    @property
    def table_bytes(self) -> int:
        """Of the training questions' rows."""
        return self.train * WIDTH * 2


VQA2_FLAT = FlatSizes(train=5_000_000, val=20_000, images=82_783, answers=1_000)


def make_flat_cache(path: Path, sizes: FlatSizes, seed: int = 0) -> Cache:
    """Write both tables and both splits. The kind of its question says an example's answer; the
    image says nothing."""
    draw = np.random.default_rng(seed)
    cache = create_cache(path)
    kinds = KINDS * sizes.answers
    answer_of = np.concatenate([np.arange(sizes.answers), zipf(draw, sizes.answers, (1, kinds))[0]])
    splits = {"train": sizes.train, "val": sizes.val}
    kind = {split: draw.integers(len(answer_of), size=count) for split, count in splits.items()}
    for split, drawn in kind.items():
        kind[split] = drawn[np.argsort(answer_of[drawn], kind="stable")]
    questions = {
        split: [f"{split} {number}?" for number in range(count)] for split, count in splits.items()
    }
    texts = [*questions["train"], *questions["val"]]
    every = np.concatenate(list(kind.values()))
    rows = AroundCentres(draw, every, len(answer_of), distance=sizes.distance)
    write_table(cache, "text", TEXT, [text_key(text) for text in texts], rows, texts)
    image_keys = [draw.bytes(16) for _ in range(sizes.images)]
    rows = AroundCentres(draw, np.zeros(sizes.images, dtype=np.int64), 1)
    write_table(cache, "image", IMAGE, image_keys, rows, None)
    for split, count in splits.items():
        write_examples(
            cache,
            split,
            image=draw.integers(sizes.images, size=count, dtype=np.int32),
            image_keys=image_keys,
            question=np.arange(count, dtype=np.int32),
            questions=questions[split],
            right=answer_of[kind[split]].astype(np.int32),
            answers=[f"answer {number}" for number in range(sizes.answers)],
            draw=draw,
            dataset=DATASET,
            annotators=1,
        )
    return cache
