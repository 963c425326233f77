"""The benchmark of what journals found: what is compared and how, and a small one of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
from test_train_small_cache import FEATURES, build_cache, small_dataset

import vqa_cache
from benchmarks.measuring.report import Report
from benchmarks.phenomena.analysis import Judged, compared, found, recall_macro
from benchmarks.phenomena.command import ARMS, Trainings, every, measure
from benchmarks.phenomena.settings import (
    ABLATION,
    BESIDE,
    FACTORS,
    PHENOMENA,
    Contrast,
    cosine_minus_mlp,
    factor,
)
from train.config.files import load_experiment
from train.engine.build import make_model
from train.inputs.load import join_data
from train.inputs.specification import Vector

CONTRASTS = [
    *(one for contrasts in PHENOMENA.values() for one in contrasts),
    *(factor(name) for name in FACTORS),
    *(cosine_minus_mlp(name) for name in ("shapes", "easy_vqa")),
]


def judged(right: list[int], truth: list[int], image: list[int]) -> Judged:
    flags = np.asarray(right, float)
    return Judged(flags, flags, np.asarray(truth), np.asarray(image), answers=4, parameters=1)


def test_every_arm_is_an_experiment_and_both_sides_differ() -> None:
    for name, arm in ARMS.items():
        load_experiment(arm.name, arm.typed)
        assert arm.features.image, name
    used = {arm for one in CONTRASTS for side in (one.better, one.worse) for arm in side}
    assert used | {arm for arms in BESIDE.values() for arm in arms} == set(ARMS)
    for one in CONTRASTS:
        assert not set(one.better) & set(one.worse)
        assert len(one.better) == len(one.worse)
    assert (len(PHENOMENA), len(ABLATION)) == (9, 12)


def test_transforms_are_compared_at_equal_parameters() -> None:
    counts = []
    for name in ("transform", "no transform"):
        config = load_experiment(ARMS[name].name, ARMS[name].typed).config
        model = make_model(config, {"image": Vector(320), "text": Vector(384)}, 1000)
        counts.append(sum(p.numel() for p in model.parameters() if p.requires_grad))
    assert abs(counts[1] - counts[0]) < 0.005 * counts[0]


def test_macro_recall_is_the_mean_over_questions() -> None:
    """Answers 0, 1, 3 occur, 2 does not, 4 is outside: recalls 1/2, 1, 0."""
    one = judged([1, 0, 1, 0, 1], [0, 0, 1, 3, 4], [0, 0, 1, 1, 2])
    assert recall_macro(one).mean() == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_a_difference_counts_where_its_whole_interval_does() -> None:
    image = [0, 0, 1, 1, 2, 2, 3, 3]
    truth = [0, 0, 0, 0, 0, 0, 3, 3]
    good = [judged([1, 1, 1, 1, 1, 1, 1, 0], truth, image)] * 2
    bad = [judged([0, 0, 0, 0, 0, 0, 0, 0], truth, image)] * 2
    same = [judged([1, 1, 1, 1, 1, 1, 0, 1], truth, image)] * 2
    trained = {"good": good, "bad": bad, "same": same}
    clear = found([Contrast(("good",), ("bad",))], trained)
    assert (clear["reproduced"], clear["seeds"]) == (True, [7 / 8, 7 / 8])
    assert not found([Contrast(("bad",), ("good",))], trained)["reproduced"]
    assert not found([Contrast(("good",), ("same",))], trained)["reproduced"]
    both = compared(Contrast(("good", "same"), ("bad", "bad")), trained)
    assert both["difference"] == 7 / 8
    with pytest.raises(click.ClickException, match="good against bad: 2 questions of 1 images"):
        compared(Contrast(("good",), ("bad",), rarest=True), trained)


def test_phenomena_over_a_small_cache(tmp_path: Path) -> None:
    build_cache(tmp_path / "cache", small_dataset(), name="shapes")
    cache = vqa_cache.open(tmp_path / "cache")
    typed = (*FEATURES, "features.dataset=shapes", "train.epochs=2", "train.precision=fp32")
    report = Report()
    trainings = Trainings(cache, tmp_path, 2, (*typed, "train.batch_size=32"))
    measure(report, trainings, ["class_weights", "more_data"])
    one = report.figures["phenomena"]["class_weights"]
    assert set(one["figures"]) == {"mlp", "mlp, class weights"}
    accuracy, recall = one["differences"]
    assert (accuracy["figure"], recall["figure"]) == ("accuracy", "recall_macro")
    assert (accuracy["n"], accuracy["images"]) == (60 + 20, 12 + 4)  # test, and a tenth of train
    assert len(one["seeds"]) == 2
    assert set(report.figures["phenomena"]["more_data"]["figures"]) >= set(BESIDE["more_data"])
    assert len(trainings.done) == 6


def test_a_quarter_of_the_images_keeps_the_vocabulary(tmp_path: Path) -> None:
    build_cache(tmp_path / "cache", small_dataset(), name="shapes")
    experiment = load_experiment("mlp_answers", [*FEATURES, "features.dataset=shapes"])
    whole = join_data(experiment, vqa_cache.open(tmp_path / "cache"))
    quarter = every(whole, 4)
    assert len(quarter.splits["train"]) < 0.4 * len(whole.splits["train"])
    assert quarter.vocabulary == whole.vocabulary
    assert set(quarter.splits["train"].image % 4) == {0}
    assert replace(quarter, splits=whole.splits) == whole
