"""MiniLM over generated questions, against a padded loop and sentence-transformers."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.inputs.caches import TEXT
from benchmarks.inputs.questions import write_questions
from benchmarks.measuring.report import Figures
from benchmarks.measuring.turns import Turn, median, ratio, take_turns
from benchmarks.peers.encoder_loops import padded_text_loop, sentence_transformers_ways
from benchmarks.precompute.bench import Bench
from precompute.encoders import load_encoder
from precompute.numerics import Precision
from vqa_cache.spec import parse_spec

KEYS = (
    "text_vs_padded_loop",
    "text_vs_sentence_transformers",
    "text_vs_sentence_transformers_same_precision",
)


def measure_texts(bench: Bench) -> None:
    """The three `text_vs_*`."""
    padded, library, library_same = KEYS
    bench.report.begin(f"{bench.sizes.questions:,} questions: MiniLM is set up")
    root = bench.folder / "questions"
    questions = write_questions(root, bench.sizes.questions)
    stage = bench.stage("text", root, TEXT, "text")
    split = root / "train.jsonl"
    peers: dict[str, str] = {}  # key -> piece of work
    work: dict[str, Turn] = {"text": stage.turn}
    bench.report.figures |= {"text_precision": stage.precision, **token_lengths(questions)}
    if padded in bench.wanted:
        peers[padded] = "padded_loop"
        work["padded_loop"] = bench.timed("padded_loop", lambda: padded_text_loop(TEXT, split))
    precisions: dict[str, Precision] = {library: "fp32", library_same: stage.precision}
    for key in [key for key in precisions if key in bench.wanted]:
        peers[key] = name = f"sentence_transformers_{precisions[key]}"
        if name not in work:
            work[name] = best_encode(bench, name, split, precisions[key])
    bench.report.begin(
        f"questions: MiniLM against {', '.join(name for name in work if name != 'text')}"
    )
    speeds = take_turns(work, rounds=bench.rounds, before={"text": stage.set_up})
    stage.close()
    bench.report.figures |= {key: ratio(speeds, "text", peer) for key, peer in peers.items()}
    bench.report.figures |= {f"{name}_per_second": median(speeds, name) for name in work}


def best_encode(bench: Bench, name: str, split: Path, precision: Precision) -> Turn:
    """The fastest way of sentence-transformers over the questions."""
    sizes = bench.sizes.batch_sizes
    bench.report.begin(f"questions: the best batch size of {name}, of {', '.join(map(str, sizes))}")
    ways = bench.timed(
        name, lambda: dict(sentence_transformers_ways(TEXT, split, precision, sizes))
    )
    speeds = take_turns(ways, rounds=1)
    best = max(ways, key=lambda way: median(speeds, way))
    bench.report.figures[f"{name}_best"] = best
    return ways[best]


def token_lengths(questions: list[str]) -> Figures:
    """How many word pieces the questions have, by MiniLM's own tokenizer."""
    encoder = load_encoder(parse_spec(TEXT), "text")
    lengths = [encoder.length(tokens) for tokens in encoder.prepare_many(questions)]
    return {"text_lengths": [min(lengths), round(statistics.median(lengths)), max(lengths)]}
