"""Gated multimodal units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from train.components.ranges import Size
from train.fusion.fusion import Fusion

Form = Literal["a", "b", "c", "paper"]


class GatedMultimodalUnit(Fusion):
    """Gates say how much of each modality goes on.

    "paper" is Arevalo et al. 2017 (arXiv:1702.01992), equations of section 3.2: each modality
    through tanh to `dim`, z = sigmoid of a linear layer over all of them side by side, and
    z h_1 + (1 - z) h_2, of width `dim`.
    The other forms keep each modality's own width and give them side by side, gated. "a": each
    gate is a sigmoid of its own modality, and the gates are divided by their sum. "b": the same,
    of gates that see all modalities. "c": gates that see all modalities, not divided: both may be
    open. "a" and "b" add gates of both modalities, which must be of one width (see `transform`).
    A single modality has nothing to compete with: "a" and "b" leave it as it is.
    """

    lanes_alike = True

    def __init__(
        self, sizes: Mapping[str, int], *, form: Form = "c", dim: Size = 1024, **options: Any
    ) -> None:
        super().__init__(sizes, **options)
        widths = set(self.sizes.values())
        if form in ("a", "b") and len(widths) > 1:
            raise ValueError(
                f"form is {form!r}, which divides gates by their sum, and the widths are "
                f"{' and '.join(map(str, self.sizes.values()))}; set transform to 'smallest', "
                "'largest' or a width"
            )
        if form == "paper" and len(self.sizes) > 2:
            raise ValueError(f"form is 'paper', of 2 modalities; found {len(self.sizes)}")
        if dim < 1:
            raise ValueError(f"dim is {dim}; expected at least 1")
        self.form = form
        total = sum(self.sizes.values())
        self.out_features = dim if form == "paper" else total
        self.hidden = nn.ModuleDict()
        if form == "paper":
            self.hidden = nn.ModuleDict(
                {modality: nn.Linear(width, dim) for modality, width in self.sizes.items()}
            )
            gated = {"gate": dim} if len(self.sizes) == 2 else {}
        else:
            gated = self.sizes
        self.gates = nn.ModuleDict(
            {
                name: nn.Linear(self.sizes[name] if form == "a" else total, width)
                for name, width in gated.items()
            }
        )

    def join(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        rows = [inputs[modality] for modality in self.sizes]
        if self.form == "paper":
            return self._paper(rows)
        seen = rows if self.form == "a" else [torch.cat(rows, dim=-1)] * len(rows)
        layers = self.gates.values()
        gates = [layer(row).sigmoid() for layer, row in zip(layers, seen, strict=True)]
        if self.form != "c":
            total = torch.stack(gates).sum(dim=0)
            gates = [gate / total for gate in gates]
        return torch.cat([gate * row for gate, row in zip(gates, rows, strict=True)], dim=-1)

    def _paper(self, rows: list[torch.Tensor]) -> torch.Tensor:
        layers = self.hidden.values()
        hidden = [torch.tanh(layer(row)) for layer, row in zip(layers, rows, strict=True)]
        if len(hidden) == 1:
            return hidden[0]
        gate = self.gates["gate"](torch.cat(rows, dim=-1)).sigmoid()
        return gate * hidden[0] + (1 - gate) * hidden[1]
