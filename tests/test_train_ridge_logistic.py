"""Logistic regression for a path of penalties, against scikit-learn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression

from train.engine.ridge import Column
from train.ridge.command import METHODS, command, fit_logistic
from train.ridge.logistic import STRENGTHS, LogisticPath


def columns(n: int) -> tuple[list[Column], torch.Tensor]:
    """Two inputs of n examples with fewer distinct rows, and a class that depends on both."""
    draw = torch.Generator().manual_seed(6)
    made, parts = [], []
    for distinct, width in ((40, 5), (25, 3)):
        rows = torch.randn(distinct, width, generator=draw, dtype=torch.float64)
        number = torch.randint(distinct, (n,), generator=draw)
        made.append(Column(rows.__getitem__, distinct, width, number))
        parts.append(rows[number])
    x = torch.cat(parts, dim=1)
    noise = torch.randn(n, 4, generator=draw, dtype=torch.float64)
    truth = (x @ torch.randn(8, 4, generator=draw, dtype=torch.float64) + noise).argmax(dim=1)
    return made, truth


def test_every_penalty_has_the_optimum_of_scikit_learn() -> None:
    n = 300
    inputs, truth = columns(n)
    x = torch.cat([one.exact(one.number) for one in inputs], dim=1).numpy()
    path = LogisticPath(inputs, truth, 4)
    for strength in STRENGTHS[12:40:9]:  # solved one after another, from the strongest on
        weights, bias = path.solve(strength / n)
        theirs = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=20_000)
        theirs.fit(x, truth.numpy())
        np.testing.assert_allclose(weights.numpy().T, theirs.coef_, atol=1e-4)
        np.testing.assert_allclose(
            (bias - bias.mean()).numpy(), theirs.intercept_ - theirs.intercept_.mean(), atol=1e-4
        )


def test_a_penalty_begins_where_the_one_before_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in passes over the examples, which is what time goes by."""
    passes = []
    counted = LogisticPath._loss_and_slopes
    monkeypatch.setattr(
        LogisticPath,
        "_loss_and_slopes",
        lambda self, penalty: (passes.append(penalty), counted(self, penalty))[1],
    )
    inputs, truth = columns(120)
    strengths = STRENGTHS[8:30]
    path = LogisticPath(inputs, truth, 4)
    together = [path.solve(strength / 120)[0] for strength in strengths]
    warm, alone = len(passes), []
    for strength in strengths:
        alone.append(LogisticPath(inputs, truth, 4).solve(strength / 120)[0])
    assert warm < len(passes) - warm
    for one, other in zip(together, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_tables_are_ranked_by_logistic_regression(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(STRENGTHS) == 45
    some = STRENGTHS[4::8]  # the whole path is a minute of a busy core
    # by the function: another test may have imported its module anew
    monkeypatch.setitem(fit_logistic.__globals__, "STRENGTHS", some)
    monkeypatch.setitem(METHODS, "logistic", replace(METHODS["logistic"], strengths=some))
    line = ["features.dataset=tiny", "--cache", str(cache), "--method", "logistic"]
    done = CliRunner().invoke(command, [*line, "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found["strengths"] == list(some)
    both = next(head for head in found["heads"] if head["image"] and head["text"])
    assert len(both["path"]) == len(some)
    assert both["accuracy"] == max(both["path"]) > 0.5
    assert both["strength"] == some[both["path"].index(both["accuracy"])]
