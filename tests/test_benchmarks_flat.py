"""The benchmark of large tables in a short form: its figures are what they say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import flat
from benchmarks.__main__ import main
from benchmarks.inputs.flat_cache import DATASET, FlatSizes, make_flat_cache
from benchmarks.inputs.scale_cache import TEXT
from train.inputs.large.blocks import BlockSizes

SMALL = FlatSizes(train=2_000, val=200, images=30, answers=10)


def test_every_example_has_a_question_of_its_own_and_they_are_sorted_by_answer(
    tmp_path: Path,
) -> None:
    cache = make_flat_cache(tmp_path / "cache", SMALL)
    train = cache.examples(f"{DATASET}/train")
    assert train["question"].nunique() == len(train) == 2_000
    answers = train["answer"].tolist()
    assert answers == sorted(answers, key=lambda answer: int(answer.split()[1]))
    table = cache.find_table(TEXT, "text")
    assert len(table) == 2_200
    assert (table.places[1][:5].tolist()) == [0, 1, 2, 3, 4]


def test_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "RESIDENT_EXAMPLES", 2_000)
    monkeypatch.setattr(flat, "RESIDENT_EPOCHS", 1)
    monkeypatch.setattr(flat, "VQA2_FLAT", SMALL)
    monkeypatch.setattr(flat, "SMALL", SMALL)
    monkeypatch.setattr(flat, "SMALL_EPOCHS", 2)
    large = tmp_path / "large"
    make_flat_cache(large, SMALL)
    line = ["flat", "--cache", str(large), "--rounds", "2", "--seeds", "2", "--json"]
    done = CliRunner().invoke(main, [*line, "--examples", "2000"], catch_exceptions=False)
    figures = json.loads(done.stdout)
    for key in ("flat_cost", "flat_microseconds", "flat_resident_microseconds"):
        assert figures[key] > 0
    assert 0.05 < figures["flat_anonymous_gb"] < 2
    assert figures["flat_windows"] == 0, "2,000 rows are not large"
    assert abs(figures["flat_accuracy_difference"]) < 0.1
    assert math.isfinite(figures["flat_accuracy_difference_se"])
    assert figures["flat_accuracy_full"] > 0.3


def test_small_windows_are_the_same_shares_as_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    windows, full = flat.shuffles(flat.SMALL)
    assert full.large > flat.SMALL.table_bytes
    assert windows.large < flat.SMALL.table_bytes
    real = BlockSizes()
    share = flat.VQA2_FLAT.table_bytes / real.window
    assert flat.SMALL.table_bytes / windows.window == pytest.approx(share, rel=1e-3)
