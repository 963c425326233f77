"""Encoder families: one file each, named in one plain dictionary."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING

from precompute.encoders import hub
from precompute.errors import EncoderError
from vqa_cache.spec import EncoderSpec, Modality

if TYPE_CHECKING:
    from precompute.encoders.base import Encoder

FAMILIES: dict[str, str] = {
    "timm": "precompute.encoders.timm_images:load",
    "hf": "precompute.encoders.transformers_models:load",
    "dir": "precompute.encoders.transformers_models:load",
    "pkg": "precompute.encoders.transformers_models:load",
    "st": "precompute.encoders.sentences:load",
    "open_clip": "precompute.encoders.open_clip_models:load",
}
_TIMM_PACKAGE = "precompute.encoders.efficientnet_lite:load"  # of `pkg`, by spec.timm_model


def load_encoder(spec: EncoderSpec, modality: Modality, loaded: Iterable[Encoder] = ()) -> Encoder:
    """Load the encoder that a spec names, for images or for texts.

    Args:
        loaded: encoders that may lend their model, where tap and raster alone differ.

    Raises:
        EncoderError: unknown family, model or option; weights out of reach.
    """
    hub.check_reachable(spec)  # before torch is imported, which takes longer
    module, factory = _family(spec)
    if modality not in module.MODALITIES:
        (other,) = module.MODALITIES
        raise EncoderError(
            f"encoder {spec}: {_kind(spec)} has {other} models only; name it with --{other}"
        )
    local = [name for name in ("random", "weights") if name in spec.options]
    if spec.revision is not None and local:
        raise EncoderError(
            f"encoder {spec}: a revision is of a hub's weights, which {local[0]}= does not take; "
            f"leave out one of @{spec.revision} and {local[0]}="
        )
    spec = spec.with_default_tap(modality)
    for other in loaded:
        if other.modality == modality and other.spec.without_tap() == spec.without_tap():
            beside = other.beside(spec)
            if beside is not None:
                return beside
    encoder: Encoder = getattr(module, factory)(spec, modality)
    return encoder


def modalities(spec: EncoderSpec) -> tuple[Modality, ...]:
    """What a family has models for."""
    module, _ = _family(spec)
    known: tuple[Modality, ...] = module.MODALITIES
    return known


def common_taps(spec: EncoderSpec) -> tuple[str, ...]:
    """Taps that a family names beside the blocks of each model; not every model has them all."""
    module, _ = _family(spec)
    taps: tuple[str, ...] = module.TAPS
    return taps


def _family(spec: EncoderSpec) -> tuple[ModuleType, str]:
    if spec.family not in FAMILIES:
        raise EncoderError(
            f"encoder {spec}: family {spec.family!r} is not available; "
            f"available: {', '.join(FAMILIES)}"
        )
    named = FAMILIES[spec.family] if spec.timm_model is None else _TIMM_PACKAGE
    module, _, factory = named.partition(":")
    return importlib.import_module(module), factory


def _kind(spec: EncoderSpec) -> str:
    return spec.family if spec.timm_model is None else spec.model
