"""What a head can see: the four kinds of input, and a batch of one of them.

Shapes everywhere: b examples, u distinct rows of a batch, n positions, t words, d width, h heads,
a answers, k lanes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from train.inputs.shared_rows import share, spread


@dataclass(frozen=True)
class Vector:
    """One vector an example: values [u, d]."""

    d: int

    def __str__(self) -> str:
        return f"a vector of {self.d:,}"


@dataclass(frozen=True)
class Grid:
    """Positions on a raster, row by row: values [u, h * w, d]."""

    h: int
    w: int
    d: int

    @property
    def longest(self) -> int:
        """How many positions there are."""
        return self.h * self.w

    def __str__(self) -> str:
        return f"a grid of {self.h}x{self.w} positions of {self.d:,}"


@dataclass(frozen=True)
class Tokens:
    """Up to `longest` positions, of a text's tokens or an image's regions: values [u, n, d] and a
    mask. `boxes`: each has a place in the image."""

    d: int
    longest: int
    boxes: bool = False

    def __str__(self) -> str:
        return f"up to {self.longest:,} tokens of {self.d:,}"


@dataclass(frozen=True)
class Words:
    """Up to `longest` words of a vocabulary of `size`, of which id 0 is padding: int64 [u, t] and
    a mask. `vectors`: float32 [size, d] that a user gave, which an embedding begins with."""

    size: int
    longest: int
    vectors: torch.Tensor | None = None

    def __str__(self) -> str:
        return f"up to {self.longest:,} words of a vocabulary of {self.size:,}"


Positions = Grid | Tokens  # what attention looks at
Specification = Vector | Grid | Tokens | Words


@dataclass(frozen=True)
class Input:
    """One modality of a batch.

    Each distinct row is there once where `index` says which row an example has: what depends on
    the row alone is computed for [u, ...], and spread over the examples after that.

    Attributes:
        values: [u, d], [u, n, d] or int64 [u, t].
        mask: bool [u, n], true where something is; None where everything is.
        index: int64 [b], the row of each example; None where row i is example i's (u = b).
        boxes: float32 [u, n, 4], x y w h as shares of the image; None where there are none.
    """

    values: torch.Tensor
    mask: torch.Tensor | None = None
    index: torch.Tensor | None = None
    boxes: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.values) if self.index is None else len(self.index)

    def spread(self, rows: torch.Tensor) -> torch.Tensor:
        """Something of every distinct row [u, ...] for every example [b, ...]. Its gradient is
        summed over the examples of a row."""
        return rows if self.index is None else spread(rows, self.index)

    def share(self, vectors: torch.Tensor) -> torch.Tensor:
        """The same of vectors [u, d], which a layer that follows may multiply before that."""
        return vectors if self.index is None else share(vectors, self.index)


Batch = tuple[Mapping[str, Input], torch.Tensor]  # inputs by name, targets int64 [b]


@dataclass(frozen=True)
class Encoded:
    """A question, read.

    Attributes:
        vector: [b, d].
        states: of its words or tokens, [u, t, d] with a mask, and an index where several examples
            share a question; None where there are none.
    """

    vector: torch.Tensor
    states: Input | None = None
