"""What a model's logits come to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from test_train_small_cache import build_cache, small_dataset, write_experiment
from torch import nn

from train.config.files import load_experiment
from train.engine.data import load_data
from train.engine.outputs import run_model

CLASSES = 8


class Fixed(nn.Module):
    """The same logits for every example."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return self.logits.expand(len(next(iter(inputs.values()))), -1)


def test_the_five_highest_logits_and_what_ties_come_to(tmp_path: Path) -> None:
    cache = build_cache(tmp_path / "cache", small_dataset())
    data = load_data(load_experiment(str(write_experiment(tmp_path))), cache)
    part = data.parts["test"]
    truth = part.truth.numpy()
    assert len(set(truth.tolist())) > 3
    falling = run_model(Fixed(-torch.arange(float(CLASSES))), part, data.tables)
    assert (falling.predicted == 0).all()
    assert (falling.in_top5 == ((truth >= 0) & (truth < 5))).all()
    tied = run_model(Fixed(torch.zeros(CLASSES)), part, data.tables)
    assert not tied.in_top5.any(), "seven others are as high: a tie is no merit"
    nothing = run_model(Fixed(torch.full((CLASSES,), torch.nan)), part, data.tables)
    assert not nothing.in_top5.any()
    four = torch.zeros(CLASSES)
    four[4:] = -1
    assert (run_model(Fixed(four), part, data.tables).in_top5 == ((truth >= 0) & (truth < 4))).all()
