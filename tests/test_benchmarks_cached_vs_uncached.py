"""The benchmark in a short form: both sides train on the same batches, figures are numbers."""

from __future__ import annotations

import json
import math

from click.testing import CliRunner
from conftest import BERT, RESNET

from benchmarks.__main__ import main


def test_the_losses_agree_and_the_cache_is_faster(libraries: None) -> None:
    arguments = ["cached_vs_uncached", "--limit", "90", "--loss-steps", "12", "--rounds", "1"]
    encoders = ["--image", RESNET, "--text", BERT, "--steps", "1", "--json"]
    result = CliRunner().invoke(main, [*arguments, *encoders])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["loss_difference_max"] <= 1e-4
    assert figures["loss_last"] < figures["loss_first"] < 4  # it learns
    assert figures["speedup"] > 1
    seconds = figures["uncached_epoch_seconds"], figures["cached_epoch_seconds"]
    assert all(map(math.isfinite, seconds))
    assert figures["uncached_batch_size"] == 30
    assert figures["uncached_epoch"] == "scaled from 1 turns of 1 steps"
    assert 45 < figures["examples"] <= 90
