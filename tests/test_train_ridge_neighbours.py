"""Votes of the nearest training examples, against scikit-learn and on a small cache."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner
from sklearn.neighbors import KNeighborsClassifier
from test_train_small_cache import build_cache, small_dataset

from train.engine.ridge import Column
from train.ridge.command import command
from train.ridge.neighbours import NEIGHBOURS, TEMPERATURE, Neighbours


def inputs(n: int, draw: torch.Generator) -> tuple[list[Column], np.ndarray]:
    """Two inputs of n examples with fewer distinct rows, and both side by side, each of length 1
    before: their distance orders as the mean of their cosines does."""
    columns, beside = [], []
    for distinct, width in ((n // 2, 5), (n // 3, 3)):
        rows = torch.randn(distinct, width, generator=draw)
        number = torch.arange(n) % distinct  # no two examples have both rows alike
        columns.append(Column(rows.__getitem__, distinct, width, number))
        beside.append((rows / rows.norm(dim=1, keepdim=True))[number])
    return columns, torch.cat(beside, dim=1).double().numpy()


def test_votes_are_those_of_scikit_learn() -> None:
    draw = torch.Generator().manual_seed(1)
    (train, x), (asked, y) = inputs(300, draw), inputs(80, draw)
    truth = torch.randint(4, (300,), generator=draw)
    found = Neighbours(train, truth, 4).predictions(asked)
    assert found.shape == (len(NEIGHBOURS), 80)
    for place, count in enumerate(NEIGHBOURS):
        # of two inputs of length 1 the squared distance is 4 - 4 x the mean cosine
        theirs = KNeighborsClassifier(
            count, weights=lambda d: np.exp(-np.square(d) / 4 / TEMPERATURE)
        ).fit(x, truth.numpy())
        assert found[place].tolist() == theirs.predict(y).tolist(), count


def test_fewer_training_examples_than_neighbours_all_vote() -> None:
    draw = torch.Generator().manual_seed(1)
    train, _ = inputs(12, draw)
    found = Neighbours(train, torch.tensor([0] * 9 + [1] * 3), 2).predictions(train)
    assert torch.equal(found[-1], found[-2])


def test_tables_are_ranked_by_neighbours(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    build_cache(cache, small_dataset())
    line = ["features.dataset=tiny", "--cache", str(cache), "--method", "neighbours"]
    done = CliRunner().invoke(command, [*line, "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found["strengths"] == list(NEIGHBOURS)
    both = next(head for head in found["heads"] if head["image"] and head["text"])
    assert both["accuracy"] == max(both["path"]) > 0.5
    assert both["strength"] == NEIGHBOURS[both["path"].index(both["accuracy"])]
    shown = CliRunner().invoke(command, line, catch_exceptions=False).stdout
    assert "heads by neighbours" in shown
