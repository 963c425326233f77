"""Folders of runs as trainings leave them (config.toml, identity.json, metrics.jsonl, result.json),
with made-up figures."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from train.config.files import to_toml
from train.config.keys import flatten
from train.loop.layout import CONFIG, IDENTITY, METRICS, RESULT
from vqa_cache.keys import json_digest

_HEADS = ("linear", "mlp", "cosine")


def make_run(runs: Path, config: dict[str, Any], number: int, epochs: int) -> Path:
    """A finished run with seeded figures."""
    draw = random.Random(number)
    head = config["head"] | {"name": _HEADS[number % len(_HEADS)]}
    optimizer = config["optimizer"] | {"lr": 10 ** draw.uniform(-5, -2)}
    own = {**config, "seed": number, "head": head, "optimizer": optimizer}
    folder = begin_run(runs, to_toml(own), f"made-{json_digest(flatten(own))[:12]}")
    rows, last = [], {}
    for epoch in range(1, epochs + 1):
        last = {"accuracy": draw.random(), "cross_entropy": draw.expovariate(1)}
        rows.append(json.dumps({"step": epoch * 100, "epoch": epoch, "part": "val", **last}))
    (folder / METRICS).write_text("\n".join(rows) + "\n")
    metrics = {
        split: last | {"accuracy_se": 0.01, "f1_macro": draw.random(), "n": 1000, "n_left_out": 0}
        for split in ("train", "val", "test")
    }
    best = {"epoch": epochs, "metric": "accuracy", "split": "val", "held_out_of_train": False}
    result = {"run_id": folder.name, "experiment": "made", "metrics": metrics, "best": best}
    (folder / RESULT).write_text(json.dumps(result))
    return folder


def begin_run(runs: Path, config: str, name: str) -> Path:
    """The folder of a run that has no figures yet; `config` is TOML."""
    folder = runs / name
    folder.mkdir()
    (folder / CONFIG).write_text(config)
    digests = {"config": json_digest(config), "data": "0" * 32, "code": "0" * 64}
    (folder / IDENTITY).write_text(json.dumps(digests))
    return folder
