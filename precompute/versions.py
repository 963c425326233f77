"""Versions of what stage 1 computes with, read without importing any of it."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

_LIBRARIES = (
    "numpy",
    "open_clip_torch",
    "Pillow",
    "sentence-transformers",
    "timm",
    "tokenizers",
    "torch",
    "torchvision",
    "transformers",
)


def library_versions() -> dict[str, str]:
    """Installed libraries and their versions."""
    return {name: found for name in _LIBRARIES if (found := _version(name))}


@cache  # a tenth of a second for all of them, and every table asks twice
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
