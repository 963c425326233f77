"""Published mistakes: each is reproduced by name, and differs from the same system without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train_metrics import record
from test_train_small_cache import write_experiment

from train.components import families
from train.config.faithful import MISTAKES
from train.config.files import load_experiment
from train.config.schema import Config
from train.engine.build import make
from train.errors import ConfigError
from train.inputs.tokenisers import find_tokeniser
from train.inputs.vocabulary import plurals_in
from train.layers.answer_vectors import prepare
from train.metrics.classification import precision_macro

SECTIONS = {
    "features": 'dataset = "tiny"\nimage = "timm:a:random=0"\nanswer_text = "pkg:a/b"',
    "question": 'name = "word_lstm"',
    "head": 'name = "cosine"\nhidden = []',
}
COUNTS = Counter({"downs": 5, "down": 3, "fries": 9, "fry": 1, "dogs": 4, "dog": 6, "yes": 50})


def training_output(config: Config) -> Any:
    torch.manual_seed(0)
    join = make(families.FUSION, config.fusion, {"image": 4, "text": 3}).train()
    return join({"image": torch.full((2, 4), 3.0), "text": torch.ones(2, 3)}).tolist()


# what a run computes with, by mistake
SHOWN: dict[str, Callable[[Config], Any]] = {
    "l2_at_evaluation_only": training_output,
    "sorted_unique_words": lambda config: find_tokeniser(config.question.tokeniser)(  # type: ignore[union-attr]
        "is it red or is it blue?"
    ),
    "answers_normalised_over_classes": lambda config: prepare(
        torch.arange(12.0).view(4, 3), config.head.options["answers"]
    ).tolist(),
    "missing_comma": lambda config: plurals_in(COUNTS, config.answers.kept_apart),
    "zero_division_1": lambda config: precision_macro(
        replace(
            record(truth=np.array([0, 1]), predicted=np.array([0, 0]), image=np.array([0, 1])),
            zero_division=config.evaluation.zero_division,
        )
    ),
}
EXPECTED = {
    "sorted_unique_words": ["blue", "is", "it", "or", "red"],
    "missing_comma": {"dogs": "dog", "down": "downs", "fry": "fries"},
    "zero_division_1": (0.5 + 1) / 2,
}


def test_every_mistake_is_either_shown_here_or_cannot_be() -> None:
    assert set(SHOWN) == {name for name, one in MISTAKES.items() if one.settings}


@pytest.mark.parametrize("name", SHOWN)
def test_a_mistake_differs_from_the_same_system_without_it(tmp_path: Path, name: str) -> None:
    path = str(write_experiment(tmp_path, **SECTIONS))
    l2 = ['fusion.l2_inputs=["image"]']
    wrong = load_experiment(path, [f'faithful=["{name}"]'])
    right = load_experiment(path, l2 if name == "l2_at_evaluation_only" else [])
    assert SHOWN[name](wrong.config) != SHOWN[name](right.config)
    assert SHOWN[name](wrong.config) == EXPECTED.get(name, SHOWN[name](wrong.config))
    assert wrong.about.faithful == [name]
    assert wrong.config.identity() != right.config.identity()


def test_only_what_the_comma_parted_is_merged_without_it(tmp_path: Path) -> None:
    path = str(write_experiment(tmp_path, **SECTIONS))
    assert SHOWN["missing_comma"](load_experiment(path).config) == {"dogs": "dog"}


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (
            ['faithful=["batch_norm_in_train_mode"]'],
            r"'batch_norm_in_train_mode' \(a frozen encoder's .*\) cannot be shown over a cache",
        ),
        (['faithful=["zero_divison_1"]'], r"unknown mistake .*; did you mean zero_division_1\?"),
        (['faithful=[["x"]]'], "unknown mistake"),
        (["faithful=true"], "faithful = True: expected a list of: l2_at_evaluation_only"),
        (
            ['faithful=["sorted_unique_words"]', "question.tokeniser=whitespace"],
            "question.tokeniser = 'whitespace': faithful names 'sorted_unique_words', which sets",
        ),
    ],
)
def test_what_cannot_be_faithful_is_one_line(tmp_path: Path, typed: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as found:
        load_experiment(str(write_experiment(tmp_path, **SECTIONS)), typed)
    assert len(found.value.lines) == 1


def test_a_section_that_is_none_is_told_and_nothing_else_breaks(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('extends = "upc-vgg16-guse"\nfusion = 3\n[stand_in]\nfeatures = 4\n')
    for typed in ([], ["features.dataset=shapes"]):
        with pytest.raises(ConfigError, match="expected a section"):
            load_experiment(str(path), typed)
