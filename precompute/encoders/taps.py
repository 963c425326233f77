"""Where in a model a row is taken, and how it is pooled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from precompute.errors import EncoderError


class Block:
    """A named block of a model, whose output a tap takes."""

    def __init__(self, module: torch.nn.Module, name: str, spec: object) -> None:
        """Raises EncoderError listing the model's blocks when there is none of this name."""
        names = {name: child for name, child in module.named_modules() if name}
        if name not in names:
            shown = shown_blocks(module)
            raise EncoderError(f"{spec}: no block named {name!r}; the model has: {shown}")
        self.module = names[name]
        self._whole, self._name, self._spec = module, name, spec

    def checked(self, output: Any, items: int) -> torch.Tensor:
        """The tensor that the block gave for so many items. Raises EncoderError."""
        tensor = first_tensor(output)
        if tensor is None:
            raise EncoderError(
                f"{self._spec}: block {self._name!r} gives a {type(output).__name__}, "
                "no tensor; name a block inside it"
            )
        if not (tensor.ndim > 1 and len(tensor) == items):  # windows of an image, for example
            raise EncoderError(
                f"{self._spec}: block {self._name!r} gives {list(tensor.shape)} for {items} "
                "items, not one row an item; name a block around it"
            )
        return tensor

    def never_ran(self) -> EncoderError:
        """What to raise when the model has run and the block has not."""
        return EncoderError(
            f"{self._spec}: block {self._name!r} only holds others and never runs itself; "
            f"name one of: {shown_blocks(self._whole)}"
        )


def first_tensor(output: Any) -> torch.Tensor | None:
    """What a block gives: a tensor, or the first of a tuple; None for anything else."""
    output = output[0] if isinstance(output, tuple) and output else output
    return output if isinstance(output, torch.Tensor) else None


def shown_blocks(module: torch.nn.Module) -> str:
    """The names of a model's outer blocks."""
    return ", ".join(name for name, _ in module.named_modules() if name and name.count(".") < 2)


@dataclass(frozen=True)
class ImagePooling:
    """How the output of an image model or block becomes a row.

    Attributes:
        grid: cells a side; 0 averages over the whole image.
        prefix_tokens: tokens (class, registers) ahead of the patches, which are left out.
        channels_last: whether the model's maps are [batch, height, width, channels]; it decides
            where a map's shape does not.
    """

    grid: int = 0
    prefix_tokens: int = 0
    channels_last: bool = False

    @property
    def name(self) -> str:
        """As an identity spells it."""
        return f"grid={self.grid}" if self.grid else "mean"

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Pool over space.

        Args:
            features: a map [batch, channels, height, width] or [batch, height, width, channels],
                tokens [batch, prefix + patches, width] in row-major order, or vectors
                [batch, width].

        Returns:
            float32 [batch, channels], or row-major [batch, grid * grid, channels].

        Raises:
            EncoderError: a grid of what has no two spatial dimensions, or fewer cells than asked.
        """
        features = features.float()
        if features.ndim == 4:
            features = self._channels_first(features)
        if self.grid:
            return self._raster(self._as_map(features))
        if features.ndim == 4:
            return features.mean((2, 3))
        return features[:, self.prefix_tokens :].mean(1) if features.ndim == 3 else features

    def _channels_first(self, maps: torch.Tensor) -> torch.Tensor:
        _, first, second, third = maps.shape
        last = self.channels_last if (first == second) == (second == third) else first == second
        return maps.permute(0, 3, 1, 2) if last else maps

    def _as_map(self, features: torch.Tensor) -> torch.Tensor:
        if features.ndim == 4:
            return features
        if features.ndim == 3:
            tokens = features[:, self.prefix_tokens :]
            side = int(tokens.shape[1] ** 0.5)
            if side * side == tokens.shape[1]:
                return tokens.transpose(1, 2).unflatten(2, (side, side))
        raise EncoderError(
            f"grid= needs a tap with two spatial dimensions; this one gives "
            f"{list(features.shape)} (batch first)"
        )

    def _raster(self, maps: torch.Tensor) -> torch.Tensor:
        if min(maps.shape[-2:]) < self.grid:
            raise EncoderError(
                f"grid={self.grid} asks for more cells than the tap has: "
                f"{maps.shape[-2]}x{maps.shape[-1]}"
            )
        return functional.adaptive_avg_pool2d(maps, self.grid).flatten(2).transpose(1, 2)


def masked_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Average over the tokens of a text.

    Args:
        hidden: [batch, tokens, width], or [batch, width], which is returned as it is.
        mask: [batch, tokens], true or 1 for tokens, false or 0 for padding.

    Returns:
        float32 [batch, width].
    """
    hidden = hidden.float()
    if hidden.ndim == 2:
        return hidden
    weights = mask.unsqueeze(2).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)
