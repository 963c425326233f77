"""Components of one's own that do not fit are one line, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_train_small_cache import build_cache, small_dataset, write_experiment

import vqa_cache
from train.config.files import load_experiment
from train.engine.build import build_model
from train.engine.data import load_data
from train.errors import TrainError

OWN = """
import torch

class OneArgument(torch.nn.Linear):
    def __init__(self, in_features):
        super().__init__(in_features, 6)

class TooMany(torch.nn.Linear):
    def __init__(self, in_features, num_answers):
        super().__init__(in_features, num_answers + 1)

class Summed(torch.nn.Linear):
    def __init__(self, in_features, num_answers):
        super().__init__(in_features, num_answers)
    def forward(self, fused):
        return super().forward(fused).sum(dim=1)

class Good(torch.nn.Linear):
    def __init__(self, in_features, num_answers):
        super().__init__(in_features, num_answers)
"""


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("OneArgument", r"too many positional arguments; it is given 2 arguments, train.heads"),
        ("TooMany", r"gives logits \[2, 7\] for 2 examples and 6 answers; expected \[2, 6\]"),
        ("Summed", r"gives logits \[2\] for 2 examples and 6 answers; expected \[2, 6\]"),
        ("Good", ""),
    ],
)
def test_a_head_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    build_cache(tmp_path / "cache", small_dataset())
    path = write_experiment(tmp_path, head=f'name = "own:{head}"')
    experiment = load_experiment(str(path))
    data = load_data(experiment, vqa_cache.open(tmp_path / "cache"))
    if not told:
        assert build_model(experiment.config, data, data.tables).head.out_features == 6
        return
    with pytest.raises(TrainError, match=rf"^head 'own:{head}': .*{told}"):
        build_model(experiment.config, data, data.tables)
