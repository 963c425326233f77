"""Stage 1 on one GPU: images a second of ViT-B/16 and ViT-L/14, from JPEG files to commits.

\b
NAME_per_second            stage 1, from the first file opened to the last commit
NAME_forward_per_second    bare forward passes of a batch in GPU memory, in the same precision
NAME_decoding_per_second   opening and resizing alone, in as many threads as stage 1 has
NAME_vs_limit              stage 1 against the slower of the two
NAME_bottleneck            the line with which stage 1 ends

Medians of rounds that take turns. Without a GPU: says so.
"""

from __future__ import annotations

import json
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.gpu import RESULTS, WITHOUT_GPU, synchronise
from benchmarks.inputs.photographs import write_photographs
from benchmarks.measuring.report import Report, json_option, reported
from benchmarks.measuring.stage_one import StageOne
from benchmarks.measuring.turns import Turn, median, ratio, take_turns
from precompute.cores import usable_cores
from precompute.encoders.base import Encoder
from precompute.numerics import Numerics
from precompute.torchvision_operators import declare_missing_operators
from precompute.versions import library_versions
from train.inputs.device import environment
from vqa_cache.system.allocator import keep_freed_memory
from vqa_cache.system.commands import Command
from vqa_cache.system.device import choose_device

MODELS = {
    "vitb16": "timm:vit_base_patch16_224:random=0",
    "vitl14": "timm:vit_large_patch14_224:random=0",
}


@dataclass(frozen=True)
class Work:
    """How much is measured."""

    models: dict[str, str]
    images: int = 4096
    rounds: int = 3


@click.command("gpu_encoders", cls=Command, help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="Folder of results.")
@click.option("--images", default=Work.images, show_default=True, help="JPEGs of each turn.")
@json_option
def command(out: Path, images: int, as_json: bool) -> None:
    device = choose_device()
    if device.type == "cpu":
        click.echo(json.dumps({"gpu": None, "reason": WITHOUT_GPU}) if as_json else WITHOUT_GPU)
        return
    keep_freed_memory()
    declare_missing_operators()
    with reported(as_json=as_json) as report:
        measure(report, device, Work(MODELS, images))
        name = re.sub(r"[^a-z0-9]+", "-", report.figures["gpu"].lower()).strip("-")
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report.figures, indent=1) + "\n"
        (out / f"gpu-encoders-{name}.json").write_text(text)


def measure(report: Report, device: torch.device, work: Work) -> None:
    """All figures."""
    found = environment(device) | {"cores": usable_cores(), "libraries": library_versions()}
    report.figures |= {"environment": found, "gpu": found["device"], "images": work.images}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photographs"
        report.begin(f"writing {work.images} JPEGs")
        files = write_photographs(root, work.images)
        for name, spec in work.models.items():
            report.begin(f"{work.rounds} rounds of {spec}")
            stage = StageOne(root, spec, "image", Path(folder) / "cache")
            figures = of_model(stage, files, work)
            report.figures |= {f"{name}_{key}": value for key, value in figures.items()}


def of_model(stage: StageOne, files: list[Path], work: Work) -> dict[str, Any]:
    """The figures of one model."""
    stage.set_up()
    encoder, record = stage.opened.ready().encoder, stage.opened.table.record
    size = record.batch_plan.size
    turns = {
        "stage1": stage.turn,
        "forward": forward_turn(encoder, Numerics(record.computed_in), files[:size], len(files)),
        "decoding": decoding_turn(encoder, files),
    }
    speeds = take_turns(turns, rounds=work.rounds, before={"stage1": stage.set_up})
    bottleneck = next(line for line in reversed(stage.said) if "items/s on" in line)
    stage.close()
    slower = min(("forward", "decoding"), key=lambda name: median(speeds, name))
    return {
        "precision": record.computed_in,
        "batch_size": size,
        "per_second": median(speeds, "stage1"),
        "forward_per_second": median(speeds, "forward"),
        "decoding_per_second": median(speeds, "decoding"),
        "vs_limit": ratio(speeds, "stage1", slower),
        "bottleneck": bottleneck,
    }


def forward_turn(encoder: Encoder, numerics: Numerics, files: list[Path], images: int) -> Turn:
    """As many images as stage 1 encodes, from one batch that is on the device already."""
    collated = encoder.collate([encoder.prepare(str(file)) for file in files])
    batch = encoder.copies.to_device(collated)
    batches = max(1, images // len(files))

    def turn() -> float:
        with numerics.computing(encoder.device):
            for _ in range(batches):
                encoder.forward(batch)
        synchronise(encoder.device)
        return float(batches * len(files))

    return turn


def decoding_turn(encoder: Encoder, files: list[Path]) -> Turn:
    """Open and resize every file."""

    def turn() -> float:
        with ThreadPoolExecutor(usable_cores()) as pool:
            return float(sum(1 for _ in pool.map(encoder.prepare, map(str, files))))

    return turn
