"""Controls of a run: rules recomputed from the cache, and images that change places."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler
from test_train_small_cache import result_of, run_of

import vqa_cache
from benchmarks import coverage
from train.evaluation.controls import partners
from train.evaluation.probe import STRENGTHS
from train.evaluation.result import below_light_probe, image_adds_nothing
from vqa_cache.cache import Cache
from vqa_cache.keys import text_key

NAMES = ("question_type_prior", "question_lookup", "shuffled_pairs", "light_probe")


def test_rules_and_shuffled_images_of_a_run(tmp_path: Path, cache: Path) -> None:
    run = run_of(tmp_path, cache, "train.epochs=40", "head.hidden=[64]", "baselines=on")
    result = result_of(run)
    opened = vqa_cache.open(cache)
    test = opened.examples("tiny/test")
    held_out = run / "predictions.val.json"
    assert held_out.exists()
    train = opened.examples("tiny/train")
    kept = ~train.question_id.isin([row["question_id"] for row in _rows(held_out)])
    train = train[kept]
    most = train.answer.value_counts().index[0]
    for name, column in (("question_type_prior", "question_type"), ("question_lookup", "question")):
        own = {key: Counter(group.answer) for key, group in train.groupby(column)}
        right = 0.0
        for key, answer in zip(test[column], test.answer, strict=True):
            counts = own.get(key, Counter({most: 1}))
            best = [a for a, count in counts.items() if count == max(counts.values())]
            right += (answer in best) / len(best)
        found = result["baselines"][name]["test"]
        assert found["n"] == len(test)
        assert found["accuracy"] == pytest.approx(right / len(test), abs=0.1)
    shuffled = result["baselines"]["shuffled_pairs"]["test"]
    gain = result["metrics"]["test"]["accuracy"] - shuffled["accuracy"]
    assert shuffled["visual_gain"] == pytest.approx(gain)
    assert shuffled["visual_gain_low"] < gain < shuffled["visual_gain_high"]
    assert gain > 0.1, "the colour is in the image's row"
    assert "train" not in result["baselines"]["shuffled_pairs"]
    assert image_adds_nothing(result) == []
    probe = result["baselines"]["light_probe"]["test"]
    expected = pytest.approx(_ridge(opened, train), abs=0.03)  # rows may be held in bf16
    assert (probe["accuracy"], probe["n"]) == (expected, len(test))
    assert probe["accuracy"] > result["baselines"]["majority"]["test"]["accuracy"] + 0.1
    assert result["throughput"]["controls_seconds"] > 0


def _ridge(opened: Cache, train: pd.DataFrame) -> float:
    """The probe by scikit-learn, its best penalty on val; the held-out examples select."""
    image, text = opened.tables.values()
    every = opened.examples("tiny/train")
    val = every[~every.question_id.isin(train.question_id)]

    def inputs(examples: pd.DataFrame) -> np.ndarray:
        keys = [bytes.fromhex(key) for key in examples.image_key]
        both = [image.rows(keys).flatten(1), text.rows([text_key(q) for q in examples.question])]
        return torch.cat(both, dim=1).double().numpy()

    scaled = StandardScaler().fit(inputs(train))
    width, tried = scaled.n_features_in_, []
    for strength in STRENGTHS:
        varying = int((scaled.scale_ > 0).sum())
        ridge = RidgeClassifier(alpha=strength * len(train) * varying / width)
        ridge.fit(scaled.transform(inputs(train)), train.answer)
        found = [
            float((ridge.predict(scaled.transform(inputs(part))) == part.answer).mean())
            for part in (val, opened.examples("tiny/test"))
        ]
        tried.append((found[0], strength, found[1]))
    return max(tried)[2]


def _rows(path: Path) -> list[dict[str, int]]:
    import json

    rows: list[dict[str, int]] = json.loads(path.read_text())
    return rows


def test_a_run_that_sees_one_modality_says_why(tmp_path: Path, cache: Path) -> None:
    features = 'dataset = "tiny"\ntext = "pkg:tiny/model"'
    found = result_of(run_of(tmp_path, cache, "baselines=on", features=features))["baselines"]
    assert found["shuffled_pairs"] is None
    why = "the experiment does not see both image and question"
    assert found["reasons"]["shuffled_pairs"] == why
    assert found["question_lookup"]["test"]["n"] > 0
    off = result_of(run_of(tmp_path, cache, "seed=3"))["baselines"]
    assert {name: off[name] for name in NAMES} == dict.fromkeys(NAMES)
    assert {off["reasons"][name] for name in NAMES} == {"baselines = off"}


@given(st.lists(st.integers(0, 6), max_size=40), st.integers(0, 3))
def test_partners_change_places_among_equal_questions(questions: list[int], seed: int) -> None:
    order = partners(np.array(questions, dtype=np.int64), seed)
    assert sorted(order.tolist()) == list(range(len(questions)))
    counts = Counter(questions)
    once = sum(count == 1 for count in counts.values())
    for own, other in enumerate(order.tolist()):
        if counts[questions[own]] > 1:
            assert questions[other] == questions[own]
            assert other != own
        else:
            assert counts[questions[other]] == 1
            assert other != own or once == 1
    assert (order == partners(np.array(questions, dtype=np.int64), seed)).all()


def test_intervals_hold_the_known_accuracy_difference_and_visual_gain() -> None:
    """The benchmark in its short form; six standard deviations of chance are allowed."""
    for name, share in coverage.coverage(40, 150, seed=1).items():
        assert abs(share - 0.95) < 6 * (0.95 * 0.05 / 150) ** 0.5, name
    true = coverage.known()
    found = coverage.intervals(20_000, np.random.default_rng(0))
    for name, (low, high) in found.items():
        assert (low + high) / 2 == pytest.approx(true[name], abs=0.01)
        assert 0 < high - low < 0.02


def test_a_run_whose_images_add_nothing_is_told_so() -> None:
    gain = {"visual_gain": 0.001, "visual_gain_low": -0.002, "visual_gain_high": 0.004}
    result = {"baselines": {"shuffled_pairs": {"test": {"accuracy": 0.67, "n": 9, **gain}}}}
    [line] = image_adds_nothing(result)
    assert line.startswith("note: test: the image adds nothing that can be told from chance")
    assert "0.6700 (visual gain -0.0020 to +0.0040)" in line
    assert image_adds_nothing({"baselines": {}}) == []


def test_a_run_below_ridge_regression_is_told_so() -> None:
    probe = {"light_probe": {"test": {"accuracy": 0.62}, "val": {"accuracy": 0.6}}}
    metrics = {"test": {"accuracy": 0.61}, "val": {"accuracy": 0.6}, "train": {"accuracy": 1.0}}
    [line] = below_light_probe({"baselines": probe, "metrics": metrics})
    assert line.startswith("note: test: 0.6100 is below the light probe (0.6200): ridge regression")
    assert below_light_probe({"baselines": {"light_probe": None}, "metrics": metrics}) == []
