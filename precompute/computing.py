"""How an encoder computes, chosen once, when its table is begun: precision and batch plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from precompute.canaries import prepared_canaries
from precompute.encoders.base import Encoder
from precompute.errors import OutOfMemoryError
from precompute.numerics import Numerics, Precision, choose_precision
from vqa_cache.records.table import BatchPlan, PlanKind

if TYPE_CHECKING:
    from precompute.tables import EncoderSettings

GPU_BATCH = 16  # times a CPU's batch, whose activations should stay in the processor's cache


@dataclass(frozen=True)
class Computing:
    """`precision` and `batch_plan` of a table's record."""

    precision: Precision
    batch_plan: BatchPlan


def choose_computing(encoder: Encoder, settings: EncoderSettings) -> Computing:
    """What was asked for; what was not suits the device that the encoder is on.

    Raises:
        OutOfMemoryError: the GPU has no memory for the batch that was asked for, or for one item.
    """
    asked = settings.batch_size
    kind: PlanKind = encoder.batch_kind
    size = asked or encoder.batch_size
    if asked is not None and kind == "by-tokens":  # so many items, instead of so many tokens
        kind = "by-length"
    batch: Sequence[Any] = prepared_canaries(encoder)
    if encoder.device.type != "cpu":
        numerics = Numerics("fp32" if settings.precision == "auto" else settings.precision)
        size = size if asked is not None else size * GPU_BATCH
        size, batch = _fitting(encoder, batch, kind, size, numerics, smaller=asked is None)
    precision = settings.precision
    if precision == "auto":
        precision = choose_precision(encoder, batch)
    return Computing(precision, BatchPlan(kind, size))


def _fitting(
    encoder: Encoder,
    items: Sequence[Any],
    kind: PlanKind,
    size: int,
    numerics: Numerics,
    *,
    smaller: bool,
) -> tuple[int, Sequence[Any]]:
    """A size whose batch the device has memory for, and such a batch of repeated items.

    Args:
        smaller: halve the size until it fits.
    """
    while True:
        each = max(map(encoder.length, items)) if kind == "by-tokens" else 1
        batch = list(islice(cycle(items), max(1, size // each)))
        try:
            numerics.encode(encoder, batch)
        except OutOfMemoryError:
            if not smaller or len(batch) == 1:
                raise
            size //= 2
        else:
            return size, batch
