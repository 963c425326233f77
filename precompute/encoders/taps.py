"""Where in a model a row is taken, and how it is pooled."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from precompute.errors import EncoderError


class _Reached(Exception):
    """Carries a block's output out of a forward pass; what lies behind it is never computed."""

    def __init__(self, output: Any) -> None:
        self.output = output


class BlockTap:
    """Runs a model up to one named block and returns that block's output."""

    def __init__(self, module: torch.nn.Module, block: str, spec: object) -> None:
        """Raises EncoderError listing the model's blocks when there is none of this name."""
        names = {name: child for name, child in module.named_modules() if name}
        if block not in names:
            shown = shown_blocks(module)
            raise EncoderError(f"{spec}: no block named {block!r}; the model has: {shown}")
        self._module, self._block, self._spec = module, block, spec
        names[block].register_forward_hook(self._stop)

    @staticmethod
    def _stop(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        raise _Reached(output)

    def __call__(self, **inputs: torch.Tensor) -> torch.Tensor:
        try:
            self._module(**inputs)
        except _Reached as reached:
            output = reached.output
            output = output[0] if isinstance(output, tuple) else output
            if isinstance(output, torch.Tensor):
                return output
            raise EncoderError(
                f"{self._spec}: block {self._block!r} gives a {type(output).__name__}, no tensor; "
                "name a block inside it"
            ) from None
        raise EncoderError(
            f"{self._spec}: block {self._block!r} only holds others and never runs itself; "
            f"name one of: {shown_blocks(self._module)}"
        )


def shown_blocks(module: torch.nn.Module) -> str:
    """The names of a model's outer blocks."""
    return ", ".join(name for name, _ in module.named_modules() if name and name.count(".") < 2)


def pool_grid(features: torch.Tensor, grid: int, prefix_tokens: int) -> torch.Tensor:
    """Average a feature map over a grid x grid raster.

    Args:
        features: [batch, channels, height, width], or tokens [batch, prefix + side * side, width]
            in row-major order behind `prefix_tokens` (class, registers).

    Returns:
        float32 [batch, grid * grid, channels], row-major.

    Raises:
        EncoderError: the features have no two spatial dimensions, or fewer cells than the grid.
    """
    maps = _as_map(features.float(), prefix_tokens)
    if min(maps.shape[-2:]) < grid:
        raise EncoderError(
            f"grid={grid} asks for more cells than the tap has: {maps.shape[-2]}x{maps.shape[-1]}"
        )
    return functional.adaptive_avg_pool2d(maps, grid).flatten(2).transpose(1, 2)


def pool_mean(features: torch.Tensor, prefix_tokens: int) -> torch.Tensor:
    """Average over space or over the tokens behind the prefix: float32 [batch, channels]."""
    features = features.float()
    if features.ndim == 4:
        return features.mean((2, 3))
    return features[:, prefix_tokens:].mean(1) if features.ndim == 3 else features


def _as_map(features: torch.Tensor, prefix_tokens: int) -> torch.Tensor:
    if features.ndim == 4:
        return features
    if features.ndim == 3:
        tokens = features[:, prefix_tokens:]
        side = int(tokens.shape[1] ** 0.5)
        if side * side == tokens.shape[1]:
            return tokens.transpose(1, 2).unflatten(2, (side, side))
    raise EncoderError(
        f"grid= needs a tap with two spatial dimensions; this one gives {list(features.shape)} "
        "(batch first)"
    )
