"""Versions of what stage 1 computes with, read without importing any of it."""

from __future__ import annotations

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
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
