"""Principal directions instead of whole rows: `features.normalise = "pca"`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train_small_cache import build_cache, digests, run_of, small_dataset, write_experiment

import vqa_cache
from train.config.files import load_experiment
from train.engine.data import load_data
from train.inputs.normaliser import Narrowing, fit_normaliser
from vqa_cache.spec import Features


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("narrow") / "cache"
    build_cache(folder, small_dataset())
    return folder


def mixed_rows() -> torch.Tensor:
    """Six numbers a row that vary in four directions, with falling variances."""
    draw = torch.Generator().manual_seed(4)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=draw)).Q
    sizes = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0, 0.0])
    return torch.randn(3000, 6, generator=draw) * sizes @ turn + 5


def test_principal_directions_keep_the_most_variance_and_all_distances_in_them() -> None:
    rows = mixed_rows()
    normaliser = fit_normaliser("pca", rows, np.arange(2000), narrowing=Narrowing(width=4))
    found = normaliser(rows.clone())
    assert found.shape == (3000, 4)
    assert torch.allclose(found[:2000].mean(dim=0), torch.zeros(4), atol=1e-4)
    variances = found[:2000].var(dim=0, correction=0)
    assert float(variances.mean()) == pytest.approx(1, abs=1e-4)
    assert (variances.diff() < 0).all(), "the first direction has the most"
    # nothing is lost but the two directions without variance: distances keep their ratios
    apart, kept = torch.pdist(rows[:50]), torch.pdist(found[:50])
    assert torch.allclose(kept / apart, (kept / apart).mean().expand_as(kept), rtol=1e-3)
    half = fit_normaliser("pca", rows, np.arange(2000), narrowing=Narrowing(width=2))
    assert torch.allclose(half(rows.clone()) / half(rows.clone()).norm(),
                          found[:, :2] / found[:, :2].norm(), atol=1e-6)  # fmt: skip


@pytest.mark.parametrize(
    ("narrowing", "kept"),
    [(Narrowing(keep=0.7), 1), (Narrowing(keep=0.9), 2), (Narrowing(keep=1), 4),
     (Narrowing(width=3), 3), (Narrowing(width=99), 4)],
)  # fmt: skip
def test_as_many_directions_are_kept_as_are_asked_for_and_vary(
    narrowing: Narrowing, kept: int
) -> None:
    fitted = fit_normaliser("pca", mixed_rows(), np.arange(2000), narrowing=narrowing)
    assert fitted.gives(6) == kept


def test_rows_that_never_vary_become_one_zero() -> None:
    fitted = fit_normaliser("pca", torch.ones(5, 3), np.arange(5), narrowing=Narrowing(width=2))
    assert fitted(torch.ones(2, 3)).tolist() == [[0.0], [0.0]]


def test_narrowed_rows_train_to_the_same_bytes_resident_and_mapped(
    tmp_path: Path, cache: Path
) -> None:
    chosen = ["features.normalise=pca", "features.width=3", "train.epochs=1"]
    found = []
    for load in ("read", "map"):
        (folder := tmp_path / load).mkdir()
        own = [*chosen, f"load={load}"]
        experiment = load_experiment(str(write_experiment(folder)), own)
        data = load_data(experiment, vqa_cache.open(cache))
        assert [table.width for table in data.tables.values()] == [3, 3]
        assert [table.resident for table in data.tables.values()] == [load == "read"] * 2
        found.append(digests(run_of(folder, cache, *own)))
        del found[-1]["config.toml"]  # which says how they are loaded
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "features", [{"normalise": "pca"}, {"width": 3}, {"normalise": "pca", "width": 3, "keep": 0.5}]
)
def test_principal_directions_need_one_of_width_and_keep(features: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"normalise is '.*', with .*; expected width or keep"):
        Features(**features)
