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

import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks.measuring.devices import hide_gpus
from benchmarks.measuring.processes import run_python
from benchmarks.measuring.report import json_option, reported
from benchmarks.precompute import cosines, endurance, images, texts
from benchmarks.precompute.bench import Bench
from benchmarks.precompute.sizes import FULL, SMALL
from precompute.torchvision_operators import declare_missing_operators
from precompute.versions import library_versions
from train.inputs.device import environment
from vqa_cache.system.allocator import keep_freed_memory
from vqa_cache.system.commands import Command
from vqa_cache.system.device import CPU

# what measures, and the keys that it measures together
COMPARISONS: tuple[tuple[Callable[[Bench], None], tuple[str, ...]], ...] = (
    (texts.measure_texts, texts.KEYS),
    (images.measure_images, images.KEYS),
    (cosines.measure_cosines, cosines.KEYS),
    (endurance.measure_kills, endurance.KILL_KEYS),
    (endurance.measure_memory, endurance.MEMORY_KEYS),
)
KEYS = tuple(key for _, keys in COMPARISONS for key in keys)
IMPORTS = {  # side -> what it imports
    "stage1": "precompute.pipeline, precompute.encode, timm, transformers",
    "plain_loop": "torch, timm, transformers",
    "sentence_transformers": "sentence_transformers",
}


@click.command("precompute", cls=Command, help=__doc__)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(KEYS),
    metavar="KEY",
    help="Measure this; may repeat.",
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--small", is_flag=True, help="Tiny models and a few items, to try it.")
@json_option
def command(only: tuple[str, ...], rounds: int, small: bool, as_json: bool) -> None:
    hide_gpus()
    keep_freed_memory()
    declare_missing_operators()
    wanted = frozenset(only or KEYS)
    with reported(as_json=as_json) as report, tempfile.TemporaryDirectory() as name:
        report.figures["environment"] = environment(CPU) | {"libraries": library_versions()}
        bench = Bench(SMALL if small else FULL, Path(name), wanted, rounds, report)
        for measure, keys in COMPARISONS:
            if wanted & set(keys):
                measure(bench)
        report.begin("imports of each side")
        report.figures["import_seconds"] = import_seconds()


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
        found[side] = round(float(run_python("-c", code)), 2)
    return found
