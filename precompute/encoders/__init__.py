"""Encoder families: one file each, named in one plain dictionary."""

from __future__ import annotations

import importlib

from precompute.encoders.base import Encoder
from precompute.errors import EncoderError
from vqa_cache.spec import EncoderSpec, Modality

FAMILIES: dict[str, str] = {
    "timm": "precompute.encoders.timm_images:load",
    "hf": "precompute.encoders.transformers_models:load",
    "dir": "precompute.encoders.transformers_models:load",
    "pkg": "precompute.encoders.transformers_models:load",
    "st": "precompute.encoders.sentences:load",
    "open_clip": "precompute.encoders.open_clip_models:load",
}


def load_encoder(spec: EncoderSpec, modality: Modality) -> Encoder:
    """Load the encoder that a spec names, for images or for texts.

    Raises:
        EncoderError: unknown family, model or option; weights out of reach.
    """
    if spec.family not in FAMILIES:
        raise EncoderError(
            f"encoder {spec}: family {spec.family!r} is not available; "
            f"available: {', '.join(FAMILIES)}"
        )
    module, _, factory = FAMILIES[spec.family].partition(":")
    load = getattr(importlib.import_module(module), factory)
    encoder = load(spec.with_default_tap(modality), modality)
    assert isinstance(encoder, Encoder)
    return encoder
