"""The scale fixture as a command."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.inputs.scale_cache import DATASET, make_scale_cache
from benchmarks.inputs.sizes import VQA2, Sizes
from benchmarks.measuring.report import json_option, reported
from vqa_cache.system.commands import Command


@click.command("make_scale_cache", cls=Command)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new cache.")
@click.option("--scale", default=1.0, show_default=True, help="A share of VQA v2's size.")
@click.option("--seed", default=0, show_default=True)
@json_option
def command(out: Path, scale: float, seed: int, as_json: bool) -> None:
    """Write a cache of VQA v2's size, or a share of it: rows 768 wide, 1,000 answers, ten
    annotators, labels that a head can learn. `train --cache` measures over it."""
    sizes = Sizes(
        {split: max(10, round(n * scale)) for split, n in VQA2.images.items()},
        {split: max(50, round(n * scale)) for split, n in VQA2.questions.items()},
        max(50, round(VQA2.distinct_questions * scale)),
        VQA2.answers,
    )
    with reported(as_json=as_json) as report:
        report.begin(f"{out} is written")
        make_scale_cache(out, sizes, seed)
        report.figures |= {
            "cache": str(out),
            "dataset": DATASET,
            **{f"images_{split}": n for split, n in sizes.images.items()},
            **{f"questions_{split}": n for split, n in sizes.questions.items()},
            "distinct_questions": sizes.distinct_questions,
            "seconds": round(report.seconds, 1),
        }
