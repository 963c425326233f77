"""The model: question branch, attention, fusion, head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from train.inputs.specification import Encoded, Input
from train.layers.pooling import mean_of


class AnswerModel(nn.Module):
    """Inputs by name -> logits [b, answers].

    Without a question branch and an attention a grid is flattened and tokens are averaged.
    Several tables of one modality ("image", "image 2") are side by side for an attention.
    """

    lanes_alike = True

    def __init__(
        self,
        fusion: nn.Module,
        head: nn.Module,
        *,
        question: nn.Module | None = None,
        attention: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.question = question
        self.attention = attention
        self.fusion = fusion
        self.head = head

    def forward(self, inputs: Mapping[str, Input]) -> torch.Tensor:
        vectors = {name: vector_of(one) for name, one in inputs.items() if self.is_plain(name)}
        encoded: Encoded | None = None
        if self.question is not None:
            encoded = self.question(inputs["text"])
            vectors["text"] = encoded.vector
        elif "text" in vectors:
            encoded = Encoded(vectors["text"])
        if self.attention is not None:
            images = [one for name, one in inputs.items() if name.startswith("image")]
            vectors = {"image": self.attention(side_by_side(images), encoded), **vectors}
        logits: torch.Tensor = self.head(self.fusion(vectors))
        return logits

    def is_plain(self, name: str) -> bool:
        """Whether an input goes to the fusion as it is."""
        if name.startswith("image"):
            return self.attention is None
        return self.question is None


def vector_of(given: Input) -> torch.Tensor:
    """One vector an example, [b, d]: a grid flattened, tokens averaged."""
    values = given.values
    if given.mask is not None:
        values = mean_of(values, given.mask)
    elif values.ndim == 3:
        values = values.flatten(1)
    return given.share(values)


def side_by_side(inputs: Sequence[Input]) -> Input:
    """Grids of several tables as one, [u, n, sum of widths]."""
    first = inputs[0]
    if len(inputs) == 1:
        return first
    values = torch.cat([one.values for one in inputs], dim=-1)
    return Input(values, first.mask, first.index, first.boxes)
