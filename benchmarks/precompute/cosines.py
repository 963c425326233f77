"""How far rows in bf16 are from rows in fp32."""

from __future__ import annotations

import torch

from benchmarks.inputs.caches import TEXT
from benchmarks.inputs.photographs import write_photographs
from benchmarks.inputs.questions import make_questions
from benchmarks.precompute.bench import Bench
from precompute.encoders import load_encoder
from precompute.numerics import Numerics, choose_precision
from vqa_cache.spec import Modality, parse_spec

KEYS = ("bf16_worst_cosine",)


def measure_cosines(bench: Bench) -> None:
    """`bf16_worst_cosine`: the worst over all items of both image models and MiniLM."""
    images, texts = (max(bench.sizes.cosine_items[modality]) for modality in ("image", "text"))
    files = write_photographs(bench.folder / "photographs-cosine", images)
    paths = [str(file) for file in files]
    work: dict[str, tuple[str, Modality, list[str]]] = {
        name: (spec, "image", paths) for name, (spec, _) in bench.sizes.images.items()
    }
    work["text"] = TEXT, "text", make_questions(texts)
    worst, counts = {}, {}
    for name, (spec, modality, items) in work.items():
        bench.report.begin(f"{name}: rows in bf16 against rows in fp32")
        worst[name], counts[name] = worst_cosine(spec, modality, items, bench)
    bench.report.figures |= {
        "bf16_worst_cosine": min(worst.values()),
        "bf16_worst_cosine_of": worst,
        "bf16_cosine_n": counts,
    }


def worst_cosine(
    spec: str, modality: Modality, items: list[str], bench: Bench
) -> tuple[float, int]:
    """The worst cosine of one encoder's bf16 rows to its fp32 rows, and of how many."""
    encoder = load_encoder(parse_spec(spec), modality)
    prepared = encoder.prepare_many(items)
    pays = choose_precision(encoder, prepared[:4]) == "bf16"
    many, few = bench.sizes.cosine_items[modality]
    prepared = prepared[: many if pays else few]
    exact = Numerics("fp32").encode(encoder, prepared).double()
    fast = Numerics("bf16").encode(encoder, prepared).double()
    cosines = torch.nn.functional.cosine_similarity(exact, fast, dim=1)
    return round(float(cosines.min()), 6), len(prepared)
