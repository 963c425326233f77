"""Figures for snapshots that have none, or lack a metric that was added after the training.

A snapshot's weights are put into the model that its run's config builds, and evaluated on the part
that selected the epochs, without training. Results go into `<run>/validations.jsonl`, a synced line
each: that file is the truth, the registry reads it.
"""

from __future__ import annotations

import json
import os
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import vqa_cache
from train.config.schema import Config, Experiment
from train.engine.build import build_model, load_weights
from train.engine.data import load_data
from train.engine.outputs import run_model
from train.errors import TrainError
from train.evaluation.evaluate import measure
from train.inputs.device import rng_devices
from train.inputs.load import TrainingData
from train.loop.checkpoint import load_checkpoint
from train.loop.layout import CHECKPOINTS, CONFIG, IDENTITY, VALIDATIONS
from train.metrics.classification import METRICS
from train.runs.folder import read_identity
from train.runs.records import Snapshot, read_run


def lacking(run: Path) -> dict[Snapshot, list[str]]:
    """Metrics known now that no validation of a snapshot has; snapshots that lack none are left
    out."""
    record = read_run(run)
    has: dict[Snapshot, set[str]] = {snapshot: set() for snapshot in record.snapshots}
    for item in record.validations:
        has.setdefault(item.snapshot, set()).add(item.name)
    missing = {s: [name for name in METRICS if name not in has[s]] for s in record.snapshots}
    return {snapshot: names for snapshot, names in missing.items() if names}


def validate(run: Path, cache: Path, snapshots: Sequence[Snapshot]) -> Iterator[dict[str, Any]]:
    """Evaluate snapshots of a run; each row is on disk before it is given.

    Raises:
        TrainError: the cache is not the one that the run was trained on, or a snapshot is damaged
            or does not fit the model.
    """
    config = Config.model_validate(tomllib.loads((run / CONFIG).read_text(encoding="utf-8")))
    experiment = Experiment(
        run.name, config, f"python -m precompute --for {shlex.quote(str(run / CONFIG))}"
    )
    identity = read_identity(run)
    if identity is None:
        raise TrainError(f"{run / IDENTITY} is missing or damaged; expected what the run was")
    data = load_data(experiment, vqa_cache.open(cache), precision=identity.get("precision"))
    trained_on = identity.get("data")
    if data.digest != trained_on:
        raise TrainError(
            f"{run.name}: the cache {cache} has data {data.digest}, the run was trained on "
            f"{trained_on}; expected the same cache (--cache)"
        )
    for snapshot in snapshots:
        row = {
            "snapshot": snapshot.name,
            "step": snapshot.step,
            "epoch": snapshot.epoch,
            "part": data.selection,
            **_figures(run / CHECKPOINTS / snapshot.name, config, data),
        }
        _append(run / VALIDATIONS, row)
        yield row


def _figures(folder: Path, config: Config, data: TrainingData) -> dict[str, Any]:
    tensors, _ = load_checkpoint(folder)
    with torch.random.fork_rng(devices=rng_devices(data.device)):
        model = build_model(config, data, list(data.tables))
    try:
        load_weights(model, tensors)
    except RuntimeError as error:
        first = " ".join(str(error).split())
        raise TrainError(f"checkpoint {folder}: does not fit the run's model: {first}") from None
    part = data.parts[data.selection]
    outputs = run_model(model, part, data.tables, data.precision, temperature=config.temperature)
    figures = measure(part, outputs, data.vocabulary, zero_division=config.evaluation.zero_division)
    reasons = {name: why for name, why in figures["reasons"].items() if name in METRICS}
    return {
        "metrics": {name: figures[name] for name in METRICS},
        "n": figures["n"],
        "reasons": reasons,
    }


def _append(path: Path, row: dict[str, Any]) -> None:
    """One whole line, durable; a line that a crash left without its end is cut off first."""
    line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
    with path.open("ab+") as file:
        file.seek(0)
        whole = file.read().rpartition(b"\n")
        if whole[2]:
            file.truncate(len(whole[0]) + len(whole[1]))
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
