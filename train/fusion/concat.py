"""Rows side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from train.fusion.fusion import Fusion
from train.inputs.shared_rows import SharedRows


class Concat(Fusion):
    """The rows side by side: [batch, sum of widths]."""

    lanes_alike = True

    def __init__(self, sizes: Mapping[str, int], **options: Any) -> None:
        super().__init__(sizes, **options)
        self.out_features = sum(self.sizes.values())

    def join(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        rows = [inputs[modality] for modality in self.sizes]
        if len(rows) == 1:
            return rows[0]
        joined = side_by_side(rows)
        return torch.cat(rows, dim=-1) if joined is None else joined


def side_by_side(rows: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """The matrix whose neighbouring columns [batch, width] the tensors are; None if they are not,
    or a gradient flows through them."""
    if torch.compiler.is_exporting() or any(isinstance(tensor, SharedRows) for tensor in rows):
        return None
    first, width = rows[0], sum(tensor.shape[-1] for tensor in rows)
    offset = first.storage_offset()
    for tensor in rows:
        same_memory = tensor.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if (
            tensor.requires_grad
            or not same_memory
            or (tensor.dtype, len(tensor)) != (first.dtype, len(first))
            or tensor.stride() != (width, 1)
            or tensor.storage_offset() != offset
        ):
            return None
        offset += tensor.shape[1]
    return first.as_strided((len(first), width), (width, 1))
