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


class OutOfMemoryError(EncoderError):
    """A device has no memory for a batch."""
