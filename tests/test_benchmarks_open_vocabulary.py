"""The protocol of held-out answers: what is held out, what competes, how the bias is chosen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click
import numpy as np
import pytest
from test_train_small_cache import FEATURES, Item, SmallDataset, build_cache

from benchmarks.measuring.report import Report
from benchmarks.open_vocabulary import EXPERIMENT, Best, best_bias, choose, harmonic, measure

COUNTS = Counter({"yes": 500, "no": 400} | {f"answer {n}": 10 + n % 3 for n in range(60)})


def test_answers_are_held_out_twice_and_never_the_most_frequent() -> None:
    found = choose(COUNTS, 50, 8, seed=0)
    assert len(found.validation) == len(found.test) == 8
    assert not set(found.validation) & set(found.test)
    assert len({*found.seen, *found.validation, *found.test}) == 50
    assert found.seen[:2] == ["yes", "no"]
    assert choose(COUNTS, 50, 8, seed=0) == found
    assert choose(COUNTS, 50, 8, seed=1).test != found.test
    with pytest.raises(click.ClickException, match="48 answers are rare enough to be held out, ex"):
        choose(COUNTS, 50, 17, seed=0)


def test_a_bias_gives_held_out_answers_their_chance() -> None:
    """Four questions with a seen answer, two with an unseen one; seen answers lead everywhere."""
    best = Best(
        seen_right=np.array([1, 1, 1, 0, 0, 0], bool),
        unseen_right=np.array([0, 0, 0, 0, 1, 1], bool),
        lead=np.array([3.0, 2.5, 2.0, 0.5, 1.0, 2.2]),
        unseen=np.array([0, 0, 0, 0, 1, 1], bool),
        image=np.arange(6),
    )
    assert best.accuracies(0.0) == (0.75, 0.0)
    assert best.accuracies(1.5) == (0.75, 0.5)
    bias = best_bias(best)
    assert best.accuracies(bias) == (0.5, 1.0)  # 0.667, more than 0.6 and 0
    assert harmonic(0.5, 1.0) == pytest.approx(2 / 3)
    assert harmonic(0.0, 1.0) == harmonic(0.0, 0.0) == 0


def test_the_whole_protocol_over_a_small_cache(tmp_path: Path) -> None:
    """120 answers, of which 15 and 15 are held out, asked about in every split."""
    answers = [f"answer {n}" for n in range(120)]

    def asked(first: int, count: int) -> list[Item]:
        return [
            Item((image,), f"what is {answers[image % 120]} called?", answers[image % 120])
            for image in range(first, first + count)
        ]

    dataset = SmallDataset(
        {"train": asked(0, 720), "val": asked(1000, 240), "test": asked(2000, 240)}
    )
    build_cache(tmp_path / "cache", dataset, name="shapes")
    report = Report()
    typed = (*EXPERIMENT.typed, *FEATURES, "train.epochs=2", "train.precision=fp32")
    measure(report, tmp_path / "cache", tmp_path, typed, held_out=15, seeds=2)
    figures = report.figures
    first, second = figures["seeds"]
    assert first["n_unseen"] == second["n_unseen"] == 30  # two test questions an answer
    assert figures["chance"] == 1 / (90 + 15)
    low, high = figures["unseen_interval"]
    assert low <= figures["unseen_accuracy_cosine"] <= high
    assert figures["unseen_accuracy_cosine"] == (first["unseen"] + second["unseen"]) / 2
    assert first["unseen"] >= first["unseen_without_bias"]
    assert first["harmonic_mean"] == harmonic(first["seen"], first["unseen"])
