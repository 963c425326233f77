"""Rows of int8: each vector of a row as small integers and the scale that makes them numbers again.

A vector, the last axis of a row, is stored as its d integers and the 4 bytes of its scale, so that
one read, one checksum and one gather bring both (FORMAT.md section 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqa_cache.dtypes import SCALE_BYTES, torch_type

if TYPE_CHECKING:
    import torch

    from vqa_cache.records.table import TableRecord

_LARGEST = 127


def quantise(rows: torch.Tensor) -> torch.Tensor:
    """Vectors float32 [..., d] as int8 [..., d + 4]: integers of -127 to 127, rounded half to even,
    and the little-endian float32 scale, a vector's largest magnitude / 127; 0 for zeros.

    A value comes back to within scale / 2, and its last digit in float32. It depends on its vector
    alone. A vector that is not finite gets a scale that is not.
    """
    import torch

    scale = (rows.abs().amax(dim=-1) / _LARGEST).unsqueeze(-1)
    steps = rows / torch.where(scale == 0, torch.ones_like(scale), scale)
    whole = steps.round_().clamp_(-_LARGEST, _LARGEST).to(torch.int8)
    return torch.cat([whole, scale.view(torch.int8)], dim=-1)


def widened(stored: torch.Tensor) -> torch.Tensor:
    """Stored rows as float32: of int8 [..., d + 4] the integers times their scale, [..., d]; of
    another type the same shape. float32 is given as it is, not copied."""
    import torch

    if stored.dtype != torch.int8:
        return stored.float()
    width = stored.shape[-1] - SCALE_BYTES
    # a copy: the bytes of a scale stand wherever d puts them, and float32 has to be aligned
    scale = stored[..., width:].clone(memory_format=torch.contiguous_format).view(torch.float32)
    return stored[..., :width] * scale


def as_given(stored: torch.Tensor) -> torch.Tensor:
    """Stored rows as they are handed to users: int8 as float32, other types as they are."""
    import torch

    return widened(stored) if stored.dtype == torch.int8 else stored


def to_stored(rows: torch.Tensor, dtype: str) -> torch.Tensor:
    """Rows float32 [n, *row_shape] in a stored type ("float16", "float32", "bfloat16"; "int8": [n,
    *row_shape[:-1], d + 4])."""
    return quantise(rows) if dtype == "int8" else rows.to(torch_type(dtype))


def canary_rows(record: TableRecord) -> torch.Tensor:
    """The probe items' rows of a table's record, at least one, [count, *stored_shape]."""
    import torch

    stored = record.canaries
    flat = torch.frombuffer(bytearray(stored.rows), dtype=torch_type(record.dtype))
    return flat.reshape(stored.count, *record.stored_shape)
