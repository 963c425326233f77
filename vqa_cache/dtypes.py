"""Stored types: float16, float32 and bfloat16, which numpy lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

StoredType = Literal["float16", "float32", "bfloat16"]
STORED_TYPES: tuple[StoredType, ...] = ("float16", "float32", "bfloat16")
SHORT_NAMES: dict[str, StoredType] = {"fp16": "float16", "fp32": "float32", "bf16": "bfloat16"}


def numpy_type(dtype: str) -> np.dtype[Any]:
    """The little-endian numpy type with the same bytes; bfloat16 becomes uint16."""
    return np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder("<")


def item_bytes(dtype: str) -> int:
    """Bytes of one value."""
    return numpy_type(dtype).itemsize


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
