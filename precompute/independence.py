"""Whether a row depends on its item alone: on nothing drawn at random and nothing beside it.

A cache can hold no other rows: the same command would give others, and so would another order.
"""

from __future__ import annotations

import torch

from precompute.canaries import prepared_canaries
from precompute.encoders.base import Encoder
from precompute.errors import EncoderError
from precompute.numerics import Numerics

# of a row's Euclidean length. Batches of other sizes are summed in another order: up to 1e-6 was
# seen. The least of models that see their batch was 1e-3 (Nystromformer).
MOST = 1e-4


def check_independence(encoder: Encoder) -> None:
    """Encode a probe twice, and once beside others of which one is longer; in fp32.

    Raises:
        EncoderError: the rows differ.
    """
    numerics = Numerics("fp32")
    items, again = prepared_canaries(encoder), prepared_canaries(encoder)
    alone = numerics.encode(encoder, items[:1])
    twice = _difference(alone, numerics.encode(encoder, again[:1]))
    if not twice <= MOST:
        raise EncoderError(
            f"encoder {encoder.spec}: of the same item it gave two rows that differ by {twice:.1%} "
            "of their length; it draws at random, which no cache can hold: choose another model"
        )
    beside = _difference(alone, numerics.encode(encoder, items)[: len(alone)])
    if not beside <= MOST:
        raise EncoderError(
            f"encoder {encoder.spec}: a row differs by {beside:.1%} of its length where its item "
            "stands in a batch with a longer one, expected equal rows; the model sees the padding "
            "or its neighbours: choose another model"
        )


def _difference(row: torch.Tensor, other: torch.Tensor) -> float:
    if row.shape != other.shape:
        return float("inf")
    change = (row.double() - other.double()).norm()
    return float(change / row.double().norm()) if change else 0.0
