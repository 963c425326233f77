"""A cache of VQA v2's true size, made of random rows with labels that a head can learn.

Sizes are those of VQA v2's train and val splits. Every image has a latent kind, every question
too; a fixed table of both says the answer, a share of the labels is noise, and each row is its
kind's centre and noise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.inputs.sizes import WIDTH, Sizes
from vqa_cache.arrays import text_arrays
from vqa_cache.cache import Cache, create_cache
from vqa_cache.examples import Columns, write_split
from vqa_cache.identity import add_spec, begin_table
from vqa_cache.keys import pack_keys, text_key
from vqa_cache.records.table import BatchPlan, Canaries, Identity, TableSettings
from vqa_cache.shard import ShardWriter, shard_name
from vqa_cache.spec import Modality, parse_spec

IMAGE, TEXT = "timm:scale_fixture:tap=pooled", "hf:scale-fixture:tap=mean"
DATASET = "vqa2_scale"
ANNOTATORS = 10
NOISE_SHARE = 0.2
FEATURES = (
    f"features.dataset={DATASET}",
    f"features.image={IMAGE}",
    f"features.text={TEXT}",
    "features.normalise=none",
)
ROWS_PER_SHARD = {"image": 1024, "text": 16_384}


def make_scale_cache(path: Path, sizes: Sizes, seed: int = 0) -> Cache:
    """Write both tables and all splits; the opened cache."""
    draw = np.random.default_rng(seed)
    cache = create_cache(path)
    total = sum(sizes.images.values())
    image_kind = draw.integers(sizes.image_kinds, size=total)
    question_kind = draw.integers(sizes.question_kinds, size=sizes.distinct_questions)
    answers = [f"answer {number}" for number in range(sizes.answers)]
    questions = [
        f"what is the answer to question {number} of kind {kind}?"
        for number, kind in enumerate(question_kind.tolist())
    ]
    image_keys = [draw.bytes(16) for _ in range(total)]
    rows = AroundCentres(draw, image_kind, sizes.image_kinds)
    write_table(cache, "image", IMAGE, image_keys, rows, None)
    texts = [*questions, *answers, "other"]
    text_kind = np.concatenate(
        [question_kind, draw.integers(sizes.question_kinds, size=len(texts) - len(questions))]
    )
    rows = AroundCentres(draw, text_kind, sizes.question_kinds)
    write_table(cache, "text", TEXT, [text_key(text) for text in texts], rows, texts)
    truth = zipf(draw, sizes.answers, (sizes.image_kinds, sizes.question_kinds))
    first = 0
    for split, count in sizes.questions.items():
        own = sizes.images[split]
        image = draw.integers(own, size=count, dtype=np.int32)
        image[:own] = np.arange(own)[:count]  # every image is asked about
        question = draw.integers(sizes.distinct_questions, size=count, dtype=np.int32)
        right = truth[image_kind[first + image], question_kind[question]]
        write_examples(
            cache,
            split,
            image=image,
            image_keys=image_keys[first : first + own],
            question=question,
            questions=questions,
            right=right,
            answers=answers,
            draw=draw,
        )
        first += own
    return cache


class AroundCentres:
    """Rows float16 [len(kind), WIDTH], each around the centre of its kind, drawn when they are
    asked for: slice after slice, in order."""

    def __init__(
        self,
        draw: np.random.Generator,
        kind: npt.NDArray[np.int64],
        kinds: int,
        *,
        distance: float = 1.0,
    ) -> None:
        """Args: distance: of the centres, in units of the noise around them."""
        self.draw, self.kind = draw, kind
        self.centres = draw.standard_normal((kinds, WIDTH), dtype=np.float32)
        self.centres *= np.float32(distance)

    def __getitem__(self, rows: slice) -> npt.NDArray[np.float16]:
        kind = self.kind[rows]
        noise = self.draw.standard_normal((len(kind), WIDTH), dtype=np.float32)
        noise += self.centres[kind]
        return noise.astype(np.float16)


def zipf(draw: np.random.Generator, answers: int, shape: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Answers drawn with probability 1 / rank."""
    weights = 1 / np.arange(1, answers + 1)
    drawn = draw.choice(answers, size=shape, p=weights / weights.sum())
    return drawn.astype(np.int32)


def write_table(
    cache: Cache,
    modality: Modality,
    spec_text: str,
    keys: list[bytes],
    rows: AroundCentres,
    texts: list[str] | None,
) -> None:
    """Commit rows as a table's shards."""
    spec = parse_spec(spec_text)
    identity = Identity(
        modality=modality,
        library="fixture",
        model=spec.model,
        revision=None,
        weights="none",
        architecture={},
        preprocessing={},
        tap=str(spec.tap),
        pooling="none",
        dtype="float16",
    )
    size = ROWS_PER_SHARD[modality]
    settings = TableSettings(
        row_shape=(WIDTH,),
        ragged=False,
        container="hdf5",
        rows_per_shard=size,
        precision="fp32",
        batch_plan=BatchPlan("in-order", size),
        threads=1,
        canaries=Canaries(0, b"", None, None),
        environment={},
    )
    table = begin_table(cache, identity, spec.model, spec, settings)
    add_spec(table, spec)
    for start in range(0, len(keys), size):
        planned = keys[start : start + size]
        own = texts[start : start + size] if texts is not None else None
        name = shard_name(table.id, planned)
        writer = ShardWriter(table.folder, table.record, planned, own, name)
        writer.write(list(range(len(planned))), rows[start : start + size])
        writer.commit()
    table.seal()


def write_examples(
    cache: Cache,
    split: str,
    *,
    image: npt.NDArray[np.int32],
    image_keys: list[bytes],
    question: npt.NDArray[np.int32],
    questions: list[str],
    right: npt.NDArray[np.int32],
    answers: list[str],
    draw: np.random.Generator,
    dataset: str = DATASET,
    annotators: int = ANNOTATORS,
) -> None:
    """Commit a split: annotators, most of whom give the right answer, and that answer."""
    n = len(image)
    noisy = draw.random((n, annotators)) < NOISE_SHARE
    given = np.where(noisy, draw.integers(len(answers), size=noisy.shape), right[:, None])
    asked, position = np.unique(question, return_inverse=True)
    columns: Columns = {
        "question_id": np.arange(n, dtype=np.int64),
        "image_id": image.astype(np.int64),
        "image_keys": pack_keys(image_keys),
        "image_positions": image,
        "question_keys": pack_keys([text_key(questions[i]) for i in asked.tolist()]),
        "question_positions": position.astype(np.int32),
        "answer": right,
        "answers": given.astype(np.int32).reshape(-1),
        "answers_offsets": np.arange(n + 1, dtype=np.int64) * annotators,
        "question_type": np.full(n, -1, dtype=np.int32),
        "answer_type": np.full(n, -1, dtype=np.int32),
        **text_arrays("question_text", [questions[i] for i in asked.tolist()]),
        **text_arrays("answer_text", answers),
        **text_arrays("question_type_text", []),
        **text_arrays("answer_type_text", []),
    }
    folder = cache.path / "examples" / dataset / split
    write_split(folder, columns, examples=n, annotated=True, limit=None, skipped=[])
