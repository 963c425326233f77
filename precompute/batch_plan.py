"""How much an encoder takes at a time; chosen once, when its table is begun."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

from precompute.encoders.base import Encoder
from precompute.errors import OutOfMemoryError
from precompute.numerics import Numerics

GPU_BATCH = 16  # times a CPU's batch, whose activations should stay in the processor's cache


def choose_batch_plan(
    encoder: Encoder, items: Sequence[Any], asked: int | None, numerics: Numerics
) -> tuple[dict[str, Any], Sequence[Any]]:
    """The `batch_plan` of a new table, and a batch to try precisions on.

    Args:
        items: a few prepared ones; on a GPU they are repeated to a whole batch.
        asked: items a batch, instead of the encoder's own size.
        numerics: what a GPU's memory has to hold a batch of.

    Raises:
        OutOfMemoryError: the GPU has no memory for the batch that was asked for, or for one item.
    """
    kind, size = encoder.batch_kind, asked or encoder.batch_size
    if asked is not None and kind == "by-tokens":
        kind = "by-length"
    if encoder.device.type == "cpu":
        return {"kind": kind, "size": size}, items
    if asked is None:
        size *= GPU_BATCH
    while True:
        batch = _whole_batch(encoder, items, kind, size)
        try:
            numerics.encode(encoder, batch)
        except OutOfMemoryError:
            if asked is not None or len(batch) == 1:
                raise
            size //= 2
        else:
            return {"kind": kind, "size": size}, batch


def _whole_batch(encoder: Encoder, items: Sequence[Any], kind: str, size: int) -> list[Any]:
    each = max(map(encoder.length, items)) if kind == "by-tokens" else 1
    return list(islice(cycle(items), max(1, size // each)))
