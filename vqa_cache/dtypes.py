"""Stored types: float16, float32, bfloat16, which numpy lacks, and int8 with a scale a vector."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

StoredType = Literal["float16", "float32", "bfloat16", "int8"]
ShortName = Literal["fp16", "fp32", "bf16", "int8"]
SHORT_NAMES: dict[str, StoredType] = {
    "fp16": "float16",
    "fp32": "float32",
    "bf16": "bfloat16",
    "int8": "int8",
}
STORED_TYPES: tuple[StoredType, ...] = tuple(SHORT_NAMES.values())
SCALE_BYTES = 4  # behind the integers of each vector of int8


def numpy_type(dtype: str) -> np.dtype[Any]:
    """The little-endian numpy type with the same bytes; bfloat16 becomes uint16."""
    return np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder("<")


def item_bytes(dtype: str) -> int:
    """Bytes of one value."""
    return numpy_type(dtype).itemsize


def stored_shape(row_shape: tuple[int, ...], dtype: str) -> tuple[int, ...]:
    """Shape of a row as it is stored: of int8 each vector has the bytes of its scale behind it."""
    return (*row_shape[:-1], row_shape[-1] + SCALE_BYTES) if dtype == "int8" else row_shape


def row_bytes(row_shape: tuple[int, ...], dtype: str) -> int:
    """Bytes of a row of this shape in a stored type."""
    return math.prod(stored_shape(row_shape, dtype)) * item_bytes(dtype)


def torch_type(dtype: str) -> torch.dtype:
    """The torch type of a stored type or of an array's dtype."""
    import torch

    found = getattr(torch, dtype)
    assert isinstance(found, torch.dtype), dtype
    return found


def raw_rows(stored: torch.Tensor) -> npt.NDArray[Any]:
    """Stored rows as numpy sees them; bfloat16 as uint16."""
    import torch

    stored = stored.contiguous()
    if stored.dtype == torch.bfloat16:
        return stored.view(torch.int16).numpy().view(np.uint16)
    return stored.numpy()
