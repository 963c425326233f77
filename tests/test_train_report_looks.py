"""Where an attention looked, in the samples of a report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from answering_runs import trained
from click.testing import CliRunner
from test_train_attention import ATTENTIONS, build, encoded

from train.inputs.specification import Grid, Input
from train.layers.attention import attention_weights, watching
from train.predict.model import looked_at
from train.report.__main__ import command

pytestmark = pytest.mark.usefixtures("libraries")
GRID = Grid(2, 3, 6)


def samples_of(answering: Path, name: str, out: Path) -> list[dict[str, Any]]:
    run = trained(answering, "one", name)
    options = ["--runs", answering / "runs", "--cache", answering / "cache", "--out", out]
    done = CliRunner().invoke(command, [run.name, *map(str, options)], catch_exceptions=False)
    assert done.exit_code == 0
    [text] = re.findall(r'id="samples">(.*?)</script>', out.read_text())
    found: list[dict[str, Any]] = json.loads(text)["runs"]["run1"]
    return found


def test_samples_of_an_attention_tell_where_it_looked(answering: Path, tmp_path: Path) -> None:
    samples = samples_of(answering, "attention", tmp_path / "page.html")
    assert len(samples) == 21
    for one in samples:
        assert torch.tensor(one["look"]).shape == (2, 2)
        assert float(torch.tensor(one["look"]).sum()) == pytest.approx(1, abs=0.003)
    assert 'name="look"' in (tmp_path / "page.html").read_text()


def test_a_run_without_attention_looked_nowhere(answering: Path, tmp_path: Path) -> None:
    samples = samples_of(answering, "words", tmp_path / "page.html")
    assert [one["look"] for one in samples] == [None] * 21
    assert 'name="look"' not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("name", ATTENTIONS)
def test_every_attention_tells_where_it_looks(name: str) -> None:
    """Weights follow the positions wherever they are put."""
    states = encoded()
    assert states.states is not None
    image = torch.randn(5, 6, GRID.d, dtype=torch.float64)
    module = build(name, image=GRID).eval()
    with watching() as seen:
        module(Input(image), states)
    weights = looked_at(seen, GRID)
    assert weights is not None
    assert weights.shape == (5, 2, 3)
    assert torch.allclose(weights.sum(dim=(1, 2)), torch.ones(5))
    turned = torch.tensor([5, 0, 1, 2, 3, 4])
    with watching() as seen:
        module(Input(image[:, turned]), states)
    again = looked_at(seen, GRID)
    assert again is not None
    assert torch.allclose(again.flatten(1), weights.flatten(1)[:, turned], atol=1e-6)


def test_an_attention_that_does_not_tell_looked_nowhere() -> None:
    assert looked_at([], GRID) is None


def test_masked_words_are_no_positions() -> None:
    """As many words as positions: those have a mask, a grid has none."""
    scores = torch.randn(4, 6)
    with watching() as seen:
        of_words = attention_weights(torch.zeros(4, 6), torch.ones(4, 6, dtype=torch.bool))
        of_grid = attention_weights(scores, None)
    found = looked_at(seen, GRID)
    assert found is not None
    assert torch.allclose(found.flatten(1), of_grid)
    assert not torch.allclose(of_words, of_grid)
    attention_weights(scores, None)
    assert len(seen) == 2  # nothing is watched any more
