"""An image's positions, or a question's, made ready to be attended to."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from train.inputs.specification import Grid, Input, Positions, Tokens

BOX = 4  # x y w h


class EmptyPosition(nn.Module):
    """Gives a row of which nothing is there (an image without regions, a question without words)
    one learned position, so that attention always has something to look at.

    It stands in the row's first place, which is padding; batches keep their shape. Where it is not
    `learned` it stays zero: frozen word vectors have nothing beside them that is trained.
    """

    position: torch.Tensor

    def __init__(self, d: int, *, learned: bool = True) -> None:
        super().__init__()
        if learned:
            self.position = nn.Parameter(torch.zeros(d))
        else:
            self.register_buffer("position", torch.zeros(d))

    def forward(self, positions: Input) -> Input:
        """Values [u, n, d] with n at least 1."""
        mask = positions.mask
        if mask is None:
            return positions
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        learned = first & ~mask.any(dim=1, keepdim=True)
        own = self.position.to(positions.values.dtype)
        values = torch.where(learned[..., None], own, positions.values)
        return replace(positions, values=values, mask=mask | learned)


class ReadPositions(nn.Module):
    """What an attention does first: an empty position for tokens, boxes beside the values.

    With `boxes` the x y w h of each position (shares of the image) stand beside its values, so
    that the first projection reads them too; a grid's cells have theirs by definition.

    Attributes:
        d: width of a position.
    """

    cells: torch.Tensor

    def __init__(self, image: Positions, *, boxes: bool) -> None:
        super().__init__()
        if boxes and isinstance(image, Tokens) and not image.boxes:
            raise ValueError(
                f"boxes is true, and the image gives {image} without boxes; expected imported "
                "regions with boxes, or a grid, or boxes = false"
            )
        self.boxes = boxes
        self.d = image.d + BOX * boxes
        self.empty = EmptyPosition(self.d) if isinstance(image, Tokens) else None
        if boxes and isinstance(image, Grid):
            self.register_buffer("cells", cell_boxes(image), persistent=False)

    def forward(self, image: Input) -> Input:
        if self.boxes:
            beside = (
                self.cells.expand(len(image.values), -1, -1) if self.empty is None else image.boxes
            )
            assert beside is not None
            values = torch.cat([image.values, beside.to(image.values.dtype)], dim=2)
            image = replace(image, values=values)
        return image if self.empty is None else self.empty(image)


def cell_boxes(grid: Grid) -> torch.Tensor:
    """x y w h of the cells of a grid, row by row, float32 [h * w, 4]."""
    y, x = torch.meshgrid(torch.arange(grid.h), torch.arange(grid.w), indexing="ij")
    size = torch.tensor([1 / grid.w, 1 / grid.h])
    corners = torch.stack([x, y], dim=2).flatten(0, 1) * size
    return torch.cat([corners, size.expand(len(corners), 2)], dim=1)
