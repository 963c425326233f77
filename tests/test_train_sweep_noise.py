"""Sweeps over data in which nothing can be learnt: every difference is luck."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from test_train_small_cache import (
    COLOURS,
    QUIET,
    build_cache,
    result_of,
    small_dataset,
    write_experiment,
)

from train.loop.training_loop import Watch
from train.sweep.request import Request
from train.sweep.run import sweep
from train.sweep.space import parse_space


def test_the_seeds_of_a_winner_are_not_the_lucky_one(tmp_path: Path) -> None:
    draw = random.Random(0)
    dataset = small_dataset()
    for split, items in dataset.splits.items():
        blind = [(item, draw.choice(COLOURS)) for item in items]
        dataset.splits[split] = [replace(i, answer=a, answers=(a,)) for i, a in blind]
    cache = tmp_path / "cache"
    build_cache(cache, dataset)
    words = [str(write_experiment(tmp_path)), "optimizer.lr=log:1e-4:1e-1", "train.epochs=1"]
    how: dict[str, Any] = {"sampler": "random", "pruner": "none", "seed": 0, "lanes": 32}
    request = Request(parse_space(words), trials=24, winners=1, **how)
    result = sweep(request, cache=cache, runs=tmp_path / "runs", watch=Watch(QUIET))
    (winner,) = result["winners"]
    assert [result_of(Path(path))["seed"] for path in winner["runs"]] == [1, 2, 3]
    lucky = max(row["value"] for row in result["trials"])
    assert winner["sweep_value"] == lucky
    typical = statistics.median(row["value"] for row in result["trials"])
    assert lucky > typical + 0.05, "the best of 24 by luck"
    assert winner["mean"] < lucky - 0.02, "seeds of their own are not chosen for their luck"
