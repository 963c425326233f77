"""Image models read by transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import PIL
import torch

from precompute.encoders import hub
from precompute.encoders.images import OPENING, pixels_of, probe_pixels
from precompute.encoders.options import clear_failures, integer_option
from precompute.encoders.taps import Block, ImagePooling, shown_blocks
from precompute.encoders.transformers_base import POOLED, Loaded, TransformersEncoder
from precompute.errors import EncoderError
from vqa_cache.spec import EncoderSpec

# models whose last_hidden_state comes before the last norm -> that norm
_NORM_BEHIND = {"clip_vision_model": "post_layernorm"}
_CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")


class TransformersImages(TransformersEncoder):
    """An image model of transformers."""

    modality = "image"
    batch_kind = "in-order"
    batch_size = 16

    def __init__(self, spec: EncoderSpec, loaded: Loaded) -> None:
        super().__init__(spec, loaded)
        self._grid = integer_option(spec, "grid", 0, least=1)
        if self._grid and spec.tap in ("tokens", *POOLED):
            raise EncoderError(
                f"encoder {spec}: grid={self._grid} needs a tap with two spatial dimensions, "
                f"which {spec.tap} is not; leave grid out or name cls, mean or a block"
            )
        self._has_class_token = any(
            name.rpartition(".")[2] in _CLASS_TOKENS for name, _ in self.module.named_parameters()
        )
        self.pooling = f"grid={self._grid}" if self._grid else str(spec.tap)
        model: Any = self.module
        behind = _NORM_BEHIND.get(model.config.model_type) if spec.tap not in POOLED else None
        self._norm_behind = getattr(model, behind) if behind is not None else None
        if spec.tap not in ("cls", "mean", "tokens", *POOLED):
            self.block = Block(self.module, str(spec.tap), f"encoder {spec}")
            self.pooling = self.pooling if self._grid else "mean"
        with clear_failures(spec), torch.inference_mode():
            self._processor = _image_processor(spec, loaded)
            self.row_shape = tuple(self.encode([probe_pixels(spec, self._pixels)]).shape[1:])

    def _pixels(self, image: Any) -> torch.Tensor:
        pixels: torch.Tensor = self._processor(image, return_tensors="pt")["pixel_values"][0]
        return pixels

    def prepare(self, item: str) -> torch.Tensor:
        """Pixels float32 [3, height, width]."""
        return pixels_of(item, self._pixels)

    def length(self, prepared: torch.Tensor) -> int:
        return 0

    def collate(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(prepared))

    def call(self, inputs: torch.Tensor) -> Any:
        return self.module(pixel_values=inputs)

    def rows(self, output: Any, inputs: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = output
        if self.block is None:
            if self.spec.tap in POOLED:
                return self._pooler_output(output)
            tokens = output.last_hidden_state
            if self._norm_behind is not None:
                tokens = self._norm_behind(tokens)
            if self.spec.tap == "tokens":
                return self._all_tokens(tokens)
        prefix = self._prefix_tokens(tokens, inputs)
        if self.pooling != "cls":
            return ImagePooling(self._grid, prefix)(tokens)
        if tokens.ndim != 3 or not self._has_class_token:
            raise EncoderError(
                f"encoder {self.spec}: the model has no class token, so tap cls means nothing; "
                "name tap=mean, pooler, grid=g, or a block: tap=" + shown_blocks(self.module)
            )
        return tokens[:, 0].float()

    def _all_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """float32 [batch, tokens, width], class and register tokens first."""
        if tokens.ndim != 3:
            raise EncoderError(
                f"encoder {self.spec}: the model gives a map {list(tokens.shape[1:])}, no tokens; "
                "name tap=mean with grid=g"
            )
        return tokens.float()

    def _prefix_tokens(self, tokens: torch.Tensor, pixels: torch.Tensor) -> int:
        """Class, distillation and register tokens ahead of the patches; none in a map."""
        patch = getattr(self.module.config, "patch_size", None)
        if tokens.ndim != 3 or not self._has_class_token or patch is None:
            return 0
        high, wide = (patch, patch) if isinstance(patch, int) else patch[-2:]
        # by the size of the input: some models take other sizes than the configuration's
        return max(tokens.shape[1] - (pixels.shape[-2] // high) * (pixels.shape[-1] // wide), 0)

    def preprocessing(self) -> dict[str, Any]:
        settings = json.loads(json.dumps(self._processor.to_dict(), default=str))
        settings.pop("processor_class", None)
        return {"backend": f"Pillow {PIL.__version__}", **OPENING, "processor": settings}


def _image_processor(spec: EncoderSpec, loaded: Loaded) -> Any:
    from transformers import AutoImageProcessor

    if loaded.source:
        with hub.clear_errors(spec):
            return AutoImageProcessor.from_pretrained(
                loaded.source,
                revision=loaded.revision or "main",
                trust_remote_code=False,
                local_files_only=spec.family != "hf",
                backend="pil",  # the reference decoder's own resize; recorded in the identity
            )
    return _untrained_processor(spec, loaded.model.config)


def _untrained_processor(spec: EncoderSpec, config: Any) -> Any:
    """The default image processor of a model type, its sizes scaled to the model's input."""
    import transformers
    from transformers.models.auto import image_processing_auto

    whole = config.model_type.removesuffix("_vision_model")
    known = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(whole)
    if known is None:
        raise EncoderError(f"encoder {spec}: {config.model_type} has no image processor")
    size = getattr(config, "image_size", None)
    if size is None:
        raise EncoderError(
            f"encoder {spec}: {config.model_type} names no image_size, so an untrained one has "
            "no input size; name a type such as vit, or a folder with its own processor"
        )
    height, width = (size, size) if isinstance(size, int) else size
    kind = getattr(transformers, known["pil"])
    default = kind()
    crop = default.crop_size if getattr(default, "do_center_crop", False) else None
    resized = {
        edge: (width if edge == "width" else height)
        * pixels
        // (crop["height"] if crop else pixels)
        for edge, pixels in dict(default.size).items()
        if pixels is not None
    }
    crops = {"crop_size": {"height": height, "width": width}} if crop else {}
    return kind(size=resized, **crops)
