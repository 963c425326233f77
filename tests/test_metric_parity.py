"""Metrics against independent restatements and other libraries, over drawn inputs.

PARITY_EXAMPLES says how many inputs are drawn for each: 30 unless it is set.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, top_k_accuracy_score
from test_train_metrics import value

from data.answers import CONTRACTIONS, FLAVOURS, normalise, vqa_accuracy_official
from precompute.torchvision_operators import declare_missing_operators

drawn = settings(max_examples=int(os.environ.get("PARITY_EXAMPLES", "30")), deadline=None)

# ---------------------------------------------------------------- a restatement, letter by letter

MARKS = list(';/[]"{}()=+\\_-><@`,?!')
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
PIECES = [
    *MARKS, *"aA0123.:'$%é", " ", " ", "\n", "\t", ". ", " .", "1,0", "the", "An", "none", "Ten",
    "dont", "somebody'd", "Im", "ive", "U.S.", "yes", "no", "red car", "\u0661,\u0662",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def cleaned(text: str) -> str:
    return "".join(" " if letter in "\n\t" else letter for letter in text).strip()


def restated(text: str) -> str:
    """Section by section, as the evaluator's steps are told: marks, periods, words."""
    digits_around = any(
        text[i].isdecimal() and text[i + 1] == "," and text[i + 2].isdecimal()
        for i in range(len(text) - 2)
    )
    out = list(text)
    for mark in MARKS:
        beside = any(
            text[i : i + 2] in (mark + " ", " " + mark) for i in range(max(0, len(text) - 1))
        )
        instead = "" if beside or digits_around else " "
        out = [instead if letter == mark else letter for letter in out]
    joined, kept, removed = "".join(out), "", 0
    for place, letter in enumerate(joined):
        following = joined[place + 1 : place + 2]
        if letter == "." and not following.isdecimal() and removed < 32:
            removed += 1
        else:
            kept += letter
    words = []
    for word in kept.lower().split():
        if word == "none":
            word = "0"
        elif word in NUMBERS:
            word = str(NUMBERS.index(word))
        if word not in ("a", "an", "the"):
            words.append(CONTRACTIONS.get(word, word))
    return " ".join(words)


def restated_accuracy(prediction: str, references: list[str]) -> float:
    """Ten times: leave one out, by its place, and count the others that match."""
    guess, others = cleaned(prediction), [cleaned(one) for one in references]
    if any(one != others[0] for one in others):
        guess, others = restated(guess), [restated(one) for one in others]
    scores = []
    for place in range(len(others)):
        rest = [one for at, one in enumerate(others) if at != place]
        scores.append(min(1.0, sum(one == guess for one in rest) / 3))
    return sum(scores) / len(scores)


@drawn
@given(TEXTS)
def test_normalisation_is_that_of_the_restatement(text: str) -> None:
    assert normalise(text) == restated(text)


@drawn
@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=4), st.data())
def test_official_accuracy_is_that_of_the_restatement(
    prediction: str, texts: list[str], data: st.DataObject
) -> None:
    texts = [*texts, prediction]  # so that some match
    references = data.draw(st.lists(st.sampled_from(texts), min_size=10, max_size=10))
    found = vqa_accuracy_official(prediction, references)
    assert found == pytest.approx(restated_accuracy(prediction, references))


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(("matching", "expected"), [(10, 1.0), (4, 1.0), (3, 0.9), (1, 0.3)])
def test_identical_references_without_ids_are_left_out_one_by_one(
    flavour: str, matching: int, expected: float
) -> None:
    """The evaluator that compares whole entries gives ten alike 0.0, and four of ten 0.6."""
    references = ["red"] * matching + ["blue"] * (10 - matching)
    assert vqa_accuracy_official("red", references, flavour) == pytest.approx(expected)


# ---------------------------------------------------------------- other libraries


@dataclass(frozen=True)
class Drawn:
    """Random probabilities [n, classes] of a model, and what is true."""

    shares: torch.Tensor
    truth: torch.Tensor

    @property
    def predicted(self) -> torch.Tensor:
        return self.shares.argmax(dim=1)

    def value(self, name: str) -> float:
        """A figure of ours."""
        own = self.shares.gather(1, self.truth[:, None])
        return value(
            name,
            num_answers=self.shares.shape[1],
            truth=self.truth.numpy(),
            predicted=self.predicted.numpy(),
            confidence=self.shares.max(dim=1).values.numpy(),
            cross_entropy=-own[:, 0].log().numpy(),
            in_top5=(self.shares >= own).sum(1).numpy() <= 5,
        )


@st.composite
def models(draw: st.DrawFn) -> Drawn:
    seed, classes, n = (draw(st.integers(*span)) for span in ((0, 2**32 - 1), (2, 9), (1, 60)))
    made = torch.Generator().manual_seed(seed)
    logits = torch.randn((n, classes), generator=made, dtype=torch.float64) * 2
    return Drawn(logits.softmax(dim=1), torch.randint(0, classes, (n,), generator=made))


@drawn
@given(models())
def test_figures_of_probabilities_are_those_of_scikit_learn(model: Drawn) -> None:
    truth, shares = model.truth.numpy(), model.shares.numpy()
    labels = np.arange(shares.shape[1])
    assert model.value("cross_entropy") == pytest.approx(log_loss(truth, shares, labels=labels))
    if len(labels) > 5:
        expected = top_k_accuracy_score(truth, shares, k=5, labels=labels)
        assert model.value("top5_accuracy") == pytest.approx(expected)


@pytest.mark.skipif("PARITY_EXAMPLES" not in os.environ, reason="torchmetrics takes long to import")
@drawn
@given(models())
def test_figures_of_probabilities_are_those_of_torchmetrics(model: Drawn) -> None:
    declare_missing_operators()  # it imports torchvision
    from torchmetrics.functional import classification

    given: dict[str, Any] = {"target": model.truth, "num_classes": model.shares.shape[1]}
    for name, found in {
        "accuracy": classification.multiclass_accuracy(model.predicted, average="micro", **given),
        "f1_weighted": classification.multiclass_f1_score(
            model.predicted, average="weighted", **given
        ),
        "calibration_error": classification.multiclass_calibration_error(
            model.shares, n_bins=15, norm="l1", **given
        ),
    }.items():
        assert model.value(name) == pytest.approx(float(found), abs=1e-5), name
