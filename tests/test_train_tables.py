"""Resident tables: the same numbers whether read or mapped, statistics of train rows alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from train.errors import TrainError
from train.fusion.concat import Concat
from train.inputs.normaliser import Normaliser, fit_normaliser
from train.inputs.resident import ItemRows, ResidentTable, residence
from vqa_cache.system.device import CPU

ROWS = 10_000  # more than a chunk


def table_of(rows: int = ROWS, width: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(rows, 2, width // 2, generator=generator) * 3 + 1).half()


def resident(source: torch.Tensor, used: Any, kind: Any = "none", **options: Any) -> ResidentTable:
    flat = source.reshape(len(source), -1)
    used = np.asarray(used, np.int64)
    return ResidentTable(source, used, fit_normaliser(kind, flat, used), **options)


@pytest.mark.parametrize("home", [CPU, None])
def test_grid_rows_are_flattened_and_gathered_in_order(home: torch.device | None) -> None:
    source = table_of()
    table = resident(source, np.arange(0, ROWS, 2), home=home)
    assert table.width == 6
    assert table.resident == (home is not None)
    wanted = torch.tensor([8, 0, 9998, 8])
    gathered = table.gather(ItemRows(table.local(wanted)))
    assert torch.equal(gathered, source[wanted].reshape(4, 6).float())


@pytest.mark.parametrize("kind", ["none", "l2", "zscore", "whiten"])
@pytest.mark.parametrize("compute_type", [torch.float32, torch.bfloat16])
def test_reading_and_mapping_give_the_same_bits(kind: Any, compute_type: torch.dtype) -> None:
    source, used = table_of(width=130), np.arange(ROWS)
    wanted = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))[:700]
    batches = []
    for home in (CPU, None):
        table = resident(source, used, kind, home=home, compute_type=compute_type)
        batches.append(table.gather(ItemRows(table.local(wanted))).clone())
        assert batches[-1].dtype == compute_type
    assert torch.equal(batches[0], batches[1])


def test_l2_gives_rows_of_length_one_and_leaves_zero_rows() -> None:
    source = torch.tensor([[3.0, 4.0], [0.0, 0.0]]).half()
    table = resident(source, [0, 1], "l2")
    rows = table.gather(ItemRows(torch.tensor([0, 1])))
    assert torch.allclose(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_zscore_uses_the_given_rows_once_each() -> None:
    source = torch.tensor([[1.0, 7.0], [3.0, 7.0], [99.0, 0.0]])
    normaliser = fit_normaliser("zscore", source, np.array([0, 1, 1, 1]))
    assert normaliser.mean is not None
    assert normaliser.mean.tolist() == [2.0, 7.0]
    # the second dimension never varies: centred, not scaled
    assert normaliser(source.clone()).tolist() == [[-1.0, 0.0], [1.0, 0.0], [97.0, -7.0]]
    assert set(normaliser.tensors()) == {"mean", "inverse_deviation"}


def test_zscore_of_many_rows_is_standard() -> None:
    source = table_of().reshape(ROWS, 6)
    normaliser = fit_normaliser("zscore", source, np.arange(ROWS))
    rows = normaliser(source.float())
    assert torch.allclose(rows.mean(dim=0), torch.zeros(6), atol=1e-4)
    assert torch.allclose(rows.std(dim=0), torch.ones(6), atol=1e-3)


def test_whitened_rows_have_the_identity_as_their_covariance() -> None:
    draw = torch.Generator().manual_seed(4)
    mixed = torch.randn(3000, 4, generator=draw) @ torch.randn(4, 6, generator=draw) + 5
    normaliser = fit_normaliser("whiten", mixed, np.arange(2000))
    rows = normaliser(mixed[:2000].clone())
    covariance = rows.T @ rows / 2000
    # four directions vary, two do not: those are 0 in every row, unseen ones among them
    expected = torch.diag(torch.tensor([0.0, 0, 1, 1, 1, 1]))
    assert torch.allclose(covariance, expected, atol=1e-3)
    assert torch.allclose(rows.mean(dim=0), torch.zeros(6), atol=1e-4)
    assert float(normaliser(mixed[2000:].clone())[:, :2].abs().max()) == 0
    assert set(normaliser.tensors()) == {"mean", "whitening"}


@pytest.mark.parametrize("kind", ["none", "l2", "zscore", "whiten", "pca"])
def test_what_a_run_keeps_of_a_normaliser_makes_the_same_one(kind: Any) -> None:
    source = table_of().reshape(ROWS, 6)[:500]
    fitted = fit_normaliser(kind, source, np.arange(400))
    again = Normaliser(kind, **fitted.tensors())
    assert torch.equal(again(source.float().clone()), fitted(source.float().clone()))


def test_rows_too_wide_to_whiten_are_told() -> None:
    with pytest.raises(
        TrainError, match=r"'whiten': rows of 5,000 numbers, expected at most 4,096"
    ):
        fit_normaliser("whiten", torch.zeros(2, 5000), np.array([0, 1]))


def test_several_items_are_averaged_after_normalising() -> None:
    source = torch.tensor([[3.0, 4.0], [0.0, 2.0], [5.0, 0.0]])
    table = resident(source, [0, 1, 2], "l2")
    items = ItemRows(torch.tensor([0, 1, 2, 0]), torch.tensor([0, 2, 3, 4]))
    assert len(items) == 3
    means = table.gather(items)
    assert torch.allclose(means, torch.tensor([[0.3, 0.9], [1.0, 0.0], [0.6, 0.8]]))


def test_selecting_examples_with_several_items() -> None:
    items = ItemRows(torch.tensor([5, 6, 7, 8, 9]), torch.tensor([0, 2, 3, 5]))
    chosen = items.select(torch.tensor([2, 0]))
    assert chosen.rows.tolist() == [8, 9, 5, 6]
    assert chosen.offsets is not None
    assert chosen.offsets.tolist() == [0, 2, 4]


def test_rows_of_a_batch_lie_side_by_side_and_join_without_a_copy() -> None:
    matrix = torch.arange(60.0).reshape(5, 12)
    table = resident(table_of(), np.arange(ROWS))
    rows = ItemRows(torch.tensor([3, 1, 4, 1, 5]))
    out = matrix[:, 6:]
    assert torch.equal(table.gather(rows, out=out), table.gather(rows))
    joined = Concat({"image": 6, "text": 6})({"image": matrix[:, :6], "text": out})
    assert joined.data_ptr() == matrix.data_ptr()
    assert torch.equal(joined, matrix)
    swapped = Concat({"image": 6, "text": 6})({"image": out, "text": matrix[:, :6]})
    assert torch.equal(swapped, torch.cat([out, matrix[:, :6]], dim=1))


def test_auto_reads_what_fits_and_maps_what_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert residence("auto", 24, CPU) == CPU
    monkeypatch.setattr("train.inputs.resident.available_memory", lambda: 10)
    assert residence("auto", 24, CPU) is None
    assert residence("read", 24, CPU) == CPU


def test_the_source_is_never_written_to() -> None:
    source = torch.tensor([[3.0, 4.0]])
    for home in (CPU, None):
        table = resident(source, [0], "l2", home=home)
        table.gather(ItemRows(torch.tensor([0])))
    assert source.tolist() == [[3.0, 4.0]]
    assert Normaliser("none")(source) is source
