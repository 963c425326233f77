"""Training in fp16: overflows are left out, and nothing trains in it without a scaler."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train_small_cache import QUIET, write_experiment

import vqa_cache
from train.config.files import load_experiment
from train.config.schema import Config
from train.engine.data import load_data
from train.engine.precision import choose_precision
from train.errors import DivergedError
from train.inputs.load import TrainingData
from train.loop.fit import Fitted, fit
from train.loop.training_loop import Watch
from train.sweep import pack
from vqa_cache.system.device import CPU

LOSS = """import math
from train.losses.cross_entropy import CrossEntropy

class Spikes(CrossEntropy):
    calls = 0

    def forward(self, logits, targets):
        Spikes.calls += 1
        loss = super().forward(logits, targets)
        return loss * math.inf if Spikes.calls in {when} else loss
"""


def trained(folder: Path, cache: Path, when: str) -> tuple[Fitted, list[dict[str, Any]]]:
    """60 steps in fp16, on the CPU, with a loss that overflows at some of them."""
    (folder / "spikes.py").write_text(LOSS.format(when=when))
    path = write_experiment(folder, loss='name = "spikes:Spikes"', head='name = "linear"')
    config = load_experiment(str(path), ["train.epochs=5"]).config
    data = replace(load_data(load_experiment(str(path)), vqa_cache.open(cache)), precision="fp16")
    watch = Watch(QUIET)
    fitted = fit(config, data, modalities=data.tables, what="x", folder=folder / "x", watch=watch)
    lines = (folder / "x" / "metrics.jsonl").read_text().splitlines()
    return fitted, [json.loads(line) for line in lines]


def test_a_step_that_overflows_is_left_out_and_the_run_goes_on(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fitted, rows = trained(tmp_path, cache, "(3, 20)")
    losses = [row["train_loss"] for row in rows if "part" not in row]
    assert [number for number, loss in enumerate(losses, 1) if loss is None] == [3, 20]
    assert fitted.score.accuracy > 0.4


def test_a_loss_that_always_overflows_ends_the_run(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale is halved 17 times from 2^16 until it cannot be to blame."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DivergedError, match=r"the loss is (inf|nan) at learning rate"):
        trained(tmp_path, cache, "range(1000)")


def test_trials_in_fp16_train_alone_as_lanes_have_no_scaler(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = load_experiment(str(write_experiment(tmp_path)), ["train.epochs=1"])
    data = load_data(experiment, vqa_cache.open(cache))
    seen: list[str] = []
    alone = pack._alone

    def counted(config: Config, data: TrainingData, **options: Any) -> pack.Outcome:
        seen.append(data.precision)
        return alone(config, data, **options)

    monkeypatch.setattr(pack, "_alone", counted)
    options: dict[str, Any] = {"pruner": "none", "what": "pack", "watch": Watch(QUIET)}
    outcomes = pack.train_pack([experiment.config] * 2, replace(data, precision="fp16"), **options)
    assert seen == ["fp16", "fp16"]
    assert outcomes[0] == outcomes[1]
    pack.train_pack([experiment.config] * 2, data, **options)
    assert len(seen) == 2


def test_products_of_16_bit_numbers_are_summed_in_float32() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_bf16_reduced_precision_reduction
    try:
        for asked in ("auto", "fp32", "bf16"):
            matmul.allow_bf16_reduced_precision_reduction = True
            choose_precision(asked, CPU, rows=1, inner=1, outer=1)  # type: ignore[arg-type]
            assert matmul.allow_bf16_reduced_precision_reduction is False
            assert matmul.allow_fp16_reduced_precision_reduction is False
    finally:
        matmul.allow_bf16_reduced_precision_reduction = before
