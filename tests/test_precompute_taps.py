"""Taps at named blocks, and pooling."""

from __future__ import annotations

import pytest
import torch

from precompute.encoders.taps import ImagePooling, masked_mean
from precompute.errors import EncoderError


def test_a_grid_is_row_major_averages() -> None:
    maps = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)
    pooled = ImagePooling(2)(maps)
    assert pooled.shape == (2, 4, 3)
    for cell, (rows, columns) in enumerate(
        ((slice(0, 2), slice(0, 2)), (slice(0, 2), slice(2, 4)),
         (slice(2, 4), slice(0, 2)), (slice(2, 4), slice(2, 4)))
    ):  # fmt: skip
        torch.testing.assert_close(pooled[:, cell], maps[:, :, rows, columns].mean((2, 3)))
    torch.testing.assert_close(ImagePooling(1)(maps)[:, 0], ImagePooling()(maps))


def test_tokens_are_a_map_behind_the_prefix() -> None:
    maps = torch.randn(2, 5, 4, 4)
    prefix = torch.full((2, 3, 5), 1e6)
    tokens = torch.cat([prefix, maps.flatten(2).transpose(1, 2)], dim=1)
    torch.testing.assert_close(ImagePooling(2, 3)(tokens), ImagePooling(2)(maps))
    torch.testing.assert_close(ImagePooling(0, 3)(tokens), ImagePooling()(maps))


@pytest.mark.parametrize(
    ("features", "grid"),
    [(torch.zeros(1, 3, 4, 4), 5), (torch.zeros(1, 7, 3), 2), (torch.zeros(1, 3), 1)],
)
def test_what_has_no_such_raster(features: torch.Tensor, grid: int) -> None:
    with pytest.raises(EncoderError, match="grid="):
        ImagePooling(grid)(features)


def test_halves_are_pooled_as_floats() -> None:
    maps = torch.full((1, 1, 64, 64), 60000.0, dtype=torch.float16)
    assert ImagePooling()(maps).item() == 60000.0
    assert ImagePooling(1)(maps).dtype == torch.float32


@pytest.mark.parametrize("grid", [0, 2])
def test_maps_with_channels_last_pool_over_space(grid: int) -> None:
    maps = torch.randn(2, 5, 4, 4)
    expected = ImagePooling(grid)(maps)
    torch.testing.assert_close(ImagePooling(grid)(maps.permute(0, 2, 3, 1)), expected)
    cube = torch.randn(2, 4, 4, 4)  # its shape does not tell: the model does
    turned = ImagePooling(grid, channels_last=True)(cube.permute(0, 2, 3, 1))
    torch.testing.assert_close(turned, ImagePooling(grid)(cube))


def test_padding_stays_out_of_a_mean() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [100.0]], [[2.0], [4.0], [6.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert masked_mean(hidden, mask).tolist() == [[2.0], [4.0]]
    assert masked_mean(hidden[:, 0], mask).tolist() == [[1.0], [2.0]]
