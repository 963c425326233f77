"""Random numbers as functions of (seed, purpose, position), so that none depends on history.

A run that starts at step 1,000 draws what an uninterrupted run draws there.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*parts: int | str | bytes) -> int:
    """A 63-bit seed from any number of parts, the same on every machine."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(raw).to_bytes(4, "little") + raw)
    return int.from_bytes(digest.digest(), "little") >> 1


def default_generator(device: torch.device) -> torch.Generator:
    """The global random state of a device."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator


def epoch_order(n: int, *, data_seed: int, epoch: int) -> torch.Tensor:
    """The order of n samples in an epoch, int64 [n]: a function of (data_seed, epoch) alone."""
    generator = torch.Generator().manual_seed(derive_seed(data_seed, "order", epoch))
    return torch.randperm(n, generator=generator)


def batch_bounds(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Where each batch of n samples begins and ends.

    The last batch is smaller, never dropped. A single sample left over joins the batch before it,
    because batch normalisation has no variance over one sample; batches of one by choice stay.
    """
    starts = list(range(0, n, batch_size))
    if batch_size > 1 and len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True)) if n else []
