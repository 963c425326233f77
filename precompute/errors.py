"""What can go wrong in stage 1, apart from the cache (`vqa_cache.errors`) and the dataset."""

from __future__ import annotations

from vqa_cache.errors import UserError


class PrecomputeError(UserError):
    """Base; its text is one clear line."""


class EncoderError(PrecomputeError):
    """An encoder cannot be loaded, or lacks what was asked of it."""


class OutOfReachError(EncoderError):
    """The hub does not give an encoder, whatever its tap or modality."""


class ItemError(PrecomputeError):
    """An image or text that cannot be encoded; with `--on-error skip` it becomes a record."""


class ShortageError(PrecomputeError):
    """Something failed that says nothing about the item at hand: memory, file handles or the disk.
    Never an item's failure, which would be kept for good."""

    @classmethod
    def of(cls, what: str, error: Exception) -> ShortageError:
        """With the reason in words."""
        reason = getattr(error, "strerror", None) or str(error) or "out of memory"
        told = " ".join(str(reason).split())[:200]
        return cls(
            f"{what}: cannot be read now ({told}), which is no fault of the file; committed shards "
            "are kept: see to memory, file handles and disk, then run again"
        )


class OutOfMemoryError(EncoderError):
    """A device has no memory for a batch."""
