"""The `open_clip` family: both towers of contrastive image-text models.

open_clip:ViT-B-32/laion2b_s34b_b79k              weights by their tag
open_clip:ViT-B-32/laion2b_s34b_b79k@<revision>   the hub's revision of them
open_clip:ViT-B-32:random=0                       seeded and untrained
open_clip:ViT-B-16-SigLIP:random=0:tokenizer=dir:FOLDER
                                                  a tokenizer that the model has on a hub
open_clip:ViT-B-32/openai:weights=FILE            weights of that tag, or trained from them, in a
                                                  .safetensors or .pt file
open_clip:ViT-B-16-SigLIP:weights=FILE            the same where all of the model's tags agree

Taps: `projected` (default, not normalised), `pooled` (before the projection), `tokens` (of the last
layer: an image's patches, a text's tokens, ragged), or a named block of the tower; `grid=g` pools a
block of an image tower over a raster.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from precompute.encoders import hub
from precompute.encoders.base import Encoder
from precompute.encoders.options import check_options, clear_failures, integer_option, near_names
from precompute.encoders.weights_file import clear_weight_errors
from precompute.errors import EncoderError
from precompute.torchvision_operators import declare_missing_operators
from vqa_cache.spec import EncoderSpec, Modality

MODALITIES = ("image", "text")
TAPS = ("projected", "pooled", "tokens")
_OPTIONS: dict[Modality, tuple[str, ...]] = {
    "image": ("random", "weights", "grid"),
    "text": ("random", "weights", "tokenizer"),
}


@dataclass(frozen=True)
class Tower:
    """One half of a model.

    Attributes:
        name: the model's name in open_clip's list.
        config: its part of the model's configuration.
        revision: the hub's commit of the weights, None where they are random or a file.
    """

    module: torch.nn.Module
    name: str
    config: dict[str, Any]
    revision: str | None


def load(spec: EncoderSpec, modality: Modality) -> Encoder:
    """See `precompute.encoders.load_encoder`."""
    check_options(spec, _OPTIONS[modality])
    declare_missing_operators()
    from precompute.encoders.open_clip_towers import OpenClipImages, OpenClipTexts

    tower = _tower(spec, modality)
    return OpenClipImages(spec, tower) if modality == "image" else OpenClipTexts(spec, tower)


def _tower(spec: EncoderSpec, modality: Modality) -> Tower:
    import open_clip

    name, _, tag = spec.model.partition("/")
    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        near = near_names(name, open_clip.list_models())
        raise EncoderError(
            f"encoder {spec}: open_clip has no model {name!r}; "
            f"near it: {', '.join(near) or 'see open_clip.list_models()'}"
        )
    weights = _weights(spec, name, tag)
    architecture = config["text_cfg"].get("hf_model_name")  # both towers are made, whatever is used
    if architecture is not None:
        ways = "without a hub name a model whose text tower open_clip makes itself, as ViT-B-32"
        hub.check_files(replace(spec, revision=None), architecture, "config.json", ways=ways)
    made: dict[str, Any] = {}
    if weights is not None:
        made["force_preprocess_cfg"] = weights
        if "quick_gelu" in weights:  # the activation, which the weights' shapes do not tell
            made["quick_gelu"] = weights["quick_gelu"]
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(integer_option(spec, "random", 0))
        with _clear_errors(spec):
            model = open_clip.create_model(
                name,
                pretrained=weights["file"] if weights is not None else None,
                force_custom_text=True,  # both towers become modules of their own
                pretrained_text=False,
                **made,
            )
    part, key = (model.visual, "vision_cfg") if modality == "image" else (model.text, "text_cfg")
    described = {
        "embed_dim": config["embed_dim"],
        "quick_gelu": made.get("quick_gelu", config.get("quick_gelu", False)),
        key: config[key],
    }
    return Tower(part, name, described, weights["revision"] if weights is not None else None)


def _weights(spec: EncoderSpec, name: str, tag: str) -> dict[str, Any] | None:
    """Where a model's weights are and what they were trained with; None for a random model.

    Returns:
        What open_clip says about the tag (preprocessing, `quick_gelu`), `file` and `revision`.
    """
    from open_clip import pretrained

    random, file = "random" in spec.options, spec.options.get("weights")
    if random == (file is not None or bool(tag)):
        tags = pretrained.list_pretrained_tags_by_model(name)
        raise EncoderError(
            f"encoder {spec}: expected a tag (open_clip:{name}/TAG), weights=FILE with or without "
            f"a tag, or random=SEED; tags: {', '.join(tags) or 'none'}"
        )
    if random:
        return None
    settings = _settings_of_tag(spec, name, tag) if tag else _settings_of_all_tags(spec, name)
    if file is None:
        return settings | _downloaded(spec, settings["hf_hub"])
    if not os.path.isfile(file):
        raise EncoderError(f"encoder {spec}: weights file {file} is missing")
    return settings | {"file": file, "revision": None}


def _settings_of_tag(spec: EncoderSpec, name: str, tag: str) -> dict[str, Any]:
    """What open_clip says about a tag, its activation included."""
    from open_clip import pretrained

    entry = pretrained.get_pretrained_cfg(name, tag)
    if not entry:
        raise EncoderError(
            f"encoder {spec}: {name} has no weights {tag!r}; "
            f"tags: {', '.join(pretrained.list_pretrained_tags_by_model(name)) or 'none'}"
        )
    return {"quick_gelu": False, **entry}


def _settings_of_all_tags(spec: EncoderSpec, name: str) -> dict[str, Any]:
    """What a model's tags agree in; of a model without tags its configuration says it.

    Raises:
        EncoderError: they differ in what a file's weights are read with.
    """
    from open_clip import pretrained

    places = ("url", "hf_hub")
    of_tags = {
        tag: {
            key: value
            for key, value in _settings_of_tag(spec, name, tag).items()
            if key not in places
        }
        for tag in pretrained.list_pretrained_tags_by_model(name)
    }
    first = next(iter(of_tags.values()), {})
    others = [settings for settings in of_tags.values() if settings != first]
    if others:
        differ = [key for key in {**first, **others[0]} if first.get(key) != others[0].get(key)]
        raise EncoderError(
            f"encoder {spec}: the weights of {name} were trained with settings that differ by tag "
            f"({', '.join(differ)}); name the tag that FILE holds or began from: "
            f"open_clip:{name}/TAG:weights=FILE; tags: {', '.join(of_tags)}"
        )
    return first


def _downloaded(spec: EncoderSpec, place: str) -> dict[str, Any]:
    """`file` and `revision` of a tag's weights on the hub, `place` being as open_clip lists it."""
    from open_clip import constants, pretrained

    repository, _, file = place.rpartition("/")
    file = file or constants.HF_WEIGHTS_NAME
    hub.check_files(
        spec, repository, file, Path(file).stem + ".safetensors", constants.HF_SAFE_WEIGHTS_NAME
    )
    with hub.clear_errors(spec):
        path = pretrained.download_pretrained_from_hf(
            repository, filename=file, revision=spec.revision
        )
    return {"file": path, "revision": hub.commit_of(path) or spec.revision}


def _clear_errors(spec: EncoderSpec) -> AbstractContextManager[None]:
    """Around making the model: what can go wrong depends on where its weights come from."""
    if "weights" in spec.options:
        return clear_weight_errors(spec, spec.options["weights"])
    return clear_failures(spec) if "random" in spec.options else hub.clear_errors(spec)


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip warns through the root logger of every model that it leaves random."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
