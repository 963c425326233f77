"""Encoding as people write it by hand or get it from a library, which stage 1 is compared with.

Every loop begins with the dataset's files and ends with all rows in memory; stage 1 commits them.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.measuring.turns import Turn
from precompute.encoders.taps import masked_mean
from precompute.folders import local_folder
from precompute.numerics import Precision
from vqa_cache.spec import parse_spec

BATCH, PADDED_TO = 32, 30


def plain_image_loop(spec: str, files: list[Path]) -> Turn:
    """A timm model in fp32, images opened one by one by Pillow and the model's own transform."""
    import timm
    from timm.data import create_transform, resolve_model_data_config

    model = timm.create_model(parse_spec(spec).model, num_classes=0).eval()
    transform: Any = create_transform(**resolve_model_data_config(model), is_training=False)

    def turn() -> float:
        rows = []
        with torch.no_grad():
            for start in range(0, len(files), BATCH):
                images = [Image.open(file).convert("RGB") for file in files[start : start + BATCH]]
                rows.append(model(torch.stack([transform(image) for image in images])))
        return float(len(torch.cat(rows)))

    return turn


def padded_text_loop(spec: str, split: Path) -> Turn:
    """A model of transformers in fp32, every text padded to 30 tokens, averaged over its own."""
    from transformers import AutoModel, AutoTokenizer

    folder = str(local_folder(parse_spec(spec)))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def turn() -> float:
        texts, rows = read_questions(split), []
        with torch.no_grad():
            for start in range(0, len(texts), BATCH):
                tokens = tokenizer(
                    texts[start : start + BATCH],
                    padding="max_length",
                    max_length=PADDED_TO,
                    truncation=True,
                    return_tensors="pt",
                )
                hidden = model(**tokens).last_hidden_state
                rows.append(masked_mean(hidden, tokens["attention_mask"]))
        return float(len(torch.cat(rows)))

    return turn


def sentence_transformers_ways(
    spec: str, split: Path, precision: Precision, batch_sizes: tuple[int, ...]
) -> Iterator[tuple[str, Turn]]:
    """`SentenceTransformer.encode` at each batch size: (how, turn).

    Args:
        precision: in bf16 there are two ways, bf16 weights and autocast.
    """
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(local_folder(parse_spec(spec))), device="cpu")
    ways: dict[str, tuple[SentenceTransformer, AbstractContextManager[Any]]] = {
        "fp32": (model, nullcontext())
    }
    if precision == "bf16":
        ways = {
            "bf16 weights": (copy.deepcopy(model).bfloat16(), nullcontext()),
            "autocast": (model, torch.autocast("cpu", torch.bfloat16)),
        }
    for way, (own, context) in ways.items():
        for batch_size in batch_sizes:
            yield f"{way}, batch size {batch_size}", _encoding(own, context, split, batch_size)


def _encoding(
    model: Any, context: AbstractContextManager[Any], split: Path, batch_size: int
) -> Turn:
    def turn() -> float:
        texts = read_questions(split)
        with context:
            rows = model.encode(
                texts, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False
            )
        return float(len(rows))

    return turn


def read_questions(split: Path) -> list[str]:
    """The distinct questions of a split of a `jsonl` dataset."""
    lines = split.read_text().splitlines()
    return list(dict.fromkeys(json.loads(line)["question"] for line in lines))
