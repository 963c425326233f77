"""The image and the text tower of an open_clip model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import PIL
import torch

from precompute.encoders import hub
from precompute.encoders.base import Encoder
from precompute.encoders.images import OPENING, pixels_of, probe_pixels
from precompute.encoders.open_clip_models import Tower
from precompute.encoders.options import clear_failures, integer_option, tokenizer_option
from precompute.encoders.taps import Block, ImagePooling, masked_mean
from precompute.encoders.tokenizer import (
    check_tokenizer,
    tokenizer_digest,
    tokenizer_settings,
    untruncated_length,
)
from precompute.errors import EncoderError, ItemError
from precompute.folders import local_folder
from vqa_cache.keys import canonical_json
from vqa_cache.spec import EncoderSpec

_TOKENIZER = "tokenizer_config.json"  # the file that every tokenizer has


class OpenClipEncoder(Encoder):
    """What both towers have in common; the tower is the encoder's module."""

    library = "open_clip"

    def __init__(self, spec: EncoderSpec, tower: Tower) -> None:
        super().__init__(spec, tower.module)
        self._tower = tower
        self.label = spec.model
        self._config = tower.config
        self._revision = tower.revision
        self.pooling = "none"
        if spec.tap == "pooled":
            _leave_out_projection(spec, tower.module)
        elif spec.tap == "tokens":
            _give_tokens(spec, tower.module)
        elif spec.tap != "projected":
            self.block = Block(tower.module, str(spec.tap), f"encoder {spec}")

    @property
    def revision(self) -> str | None:
        return self._revision

    def beside(self, spec: EncoderSpec) -> Encoder | None:
        if "pooled" in (spec.tap, self.spec.tap):  # which takes the projection out of the tower
            return None
        return type(self)(spec, self._tower)

    def call(self, inputs: torch.Tensor) -> Any:
        return self.module(inputs)

    @staticmethod
    def _embedding(output: Any) -> torch.Tensor:
        """float32 [batch, width] at tap `projected` or `pooled`."""
        rows: torch.Tensor = output[0] if isinstance(output, tuple) else output  # CoCa: tokens too
        return rows.float()

    @staticmethod
    def _tokens(output: Any) -> torch.Tensor:
        """float32 [batch, tokens, width] at tap `tokens`."""
        tokens: torch.Tensor = output[1]
        return tokens.float()

    def architecture(self) -> dict[str, Any]:
        modules = hashlib.sha256(repr(self.module).encode()).hexdigest()
        return {"modules": modules, "config": json.loads(json.dumps(self._config, default=str))}


def _leave_out_projection(spec: EncoderSpec, tower: torch.nn.Module) -> None:
    """Turn a tower into one that gives what its projection would be given."""
    identity = torch.nn.Identity()
    for name, absent in (("proj", identity), ("text_projection", None), ("head", identity)):
        projection = getattr(tower, name, None)
        if hasattr(projection, "pool"):  # a pooling that projects
            break
        if isinstance(projection, torch.nn.Parameter):
            setattr(tower, name, None)
            return
        if isinstance(projection, torch.nn.Module) and any(True for _ in projection.parameters()):
            setattr(tower, name, absent)
            return
    raise EncoderError(
        f"encoder {spec}: this tower has no projection apart from its pooling; "
        "name tap=projected or a block"
    )


def _give_tokens(spec: EncoderSpec, tower: Any) -> None:
    """Turn a tower into one that gives its tokens as well, after its last norm."""
    if not hasattr(tower, "output_tokens"):
        raise EncoderError(
            f"encoder {spec}: this tower gives no tokens; name tap=projected or a block"
        )
    tower.output_tokens = True


class OpenClipImages(OpenClipEncoder):
    """The image tower, behind the model's own preprocessing."""

    modality = "image"
    batch_kind = "in-order"
    batch_size = 16

    def __init__(self, spec: EncoderSpec, tower: Tower) -> None:
        super().__init__(spec, tower)
        from open_clip.transform import PreprocessCfg, image_transform_v2

        module: Any = tower.module
        self._settings = dict(module.preprocess_cfg)
        self._transform = image_transform_v2(PreprocessCfg(**self._settings), is_train=False)
        trunk = getattr(module, "trunk", None)
        own_class_token = int(hasattr(module, "class_embedding"))
        self._pool = ImagePooling(
            grid=integer_option(spec, "grid", 0, least=1),
            prefix_tokens=getattr(trunk, "num_prefix_tokens", own_class_token),
            channels_last=getattr(trunk, "output_fmt", "NCHW") == "NHWC",
        )
        if self.block is not None:
            self.pooling = self._pool.name
        elif self._pool.grid:
            raise EncoderError(
                f"encoder {spec}: grid={self._pool.grid} needs a tap with two spatial dimensions, "
                f"which {spec.tap} is not; name a block"
            )
        with clear_failures(spec), torch.inference_mode():
            self.row_shape = tuple(self.encode([probe_pixels(spec, self._transform)]).shape[1:])

    def length(self, prepared: torch.Tensor) -> int:
        return 0

    def prepare(self, item: str) -> torch.Tensor:
        """Pixels float32 [3, height, width]."""
        return pixels_of(item, self._transform)

    def collate(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(prepared))

    def rows(self, output: Any, inputs: torch.Tensor) -> torch.Tensor:
        if self.block is not None:
            return self._pool(output)
        return self._tokens(output) if self.spec.tap == "tokens" else self._embedding(output)

    def preprocessing(self) -> dict[str, Any]:
        settings = json.loads(json.dumps(self._settings, default=str))
        return {"backend": f"Pillow {PIL.__version__}", **OPENING, **settings}


class OpenClipTexts(OpenClipEncoder):
    """The text tower; a text is padded and truncated to the model's own context length."""

    modality = "text"
    batch_kind = "by-tokens"
    batch_size = 2048

    def __init__(self, spec: EncoderSpec, tower: Tower) -> None:
        super().__init__(spec, tower)
        self._tokenizer: Any = _tokenizer(spec, tower)
        if self.block is not None:
            self.pooling = "mean"
        self.ragged = spec.tap == "tokens"
        self._causal_mask = _causal_mask(tower.module, self._tokenizer)
        self._untruncated_length = _untruncated_length(self._tokenizer)
        with clear_failures(spec), torch.inference_mode():
            self.row_shape = tuple(self.encode([self.prepare("probe")]).shape[1:])

    def prepare(self, item: str) -> torch.Tensor:
        """Token ids int64 [context length]."""
        try:
            ids: torch.Tensor = self._tokenizer([item])[0]
        except (TypeError, UnicodeError) as error:  # lone surrogates
            raise ItemError("cannot be tokenised: no valid Unicode") from error
        return ids

    def to(self, device: torch.device) -> None:
        super().to(device)
        if self._causal_mask is not None:
            self._causal_mask = self._causal_mask.to(device)

    def collate(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        ids = torch.stack(list(prepared))
        return ids if self._causal_mask is None else ids[:, : max(map(self.length, prepared))]

    def call(self, inputs: torch.Tensor) -> Any:
        if self._causal_mask is not None:
            width = inputs.shape[1]
            self.module.attn_mask = self._causal_mask[:width, :width]
        return super().call(inputs)

    def rows(self, output: Any, inputs: torch.Tensor) -> torch.Tensor:
        if self.ragged:
            return self._tokens(output)[self._mask(inputs)]
        if self.block is None:
            return self._embedding(output)
        return masked_mean(output, self._mask(inputs))

    def length(self, prepared: torch.Tensor) -> int:
        return int(self._mask(prepared[None]).sum())

    def truncated(self, item: str, prepared: torch.Tensor) -> bool:
        longest = self._tokenizer.context_length
        return self.length(prepared) >= longest and self._untruncated_length(item) > longest

    def _mask(self, ids: torch.Tensor) -> torch.Tensor:
        """True up to a text's last token; the padding's id may stand for a token as well."""
        inner = getattr(self._tokenizer, "tokenizer", None)  # open_clip's own pads with 0
        padding = inner.pad_token_id if inner is not None else 0
        return (ids != padding).flip(1).cumsum(1).flip(1) > 0

    def preprocessing(self) -> dict[str, Any]:
        tokenizer = self._tokenizer
        settings = {}
        if hasattr(tokenizer, "bpe_ranks"):
            rules = [list(tokenizer.encoder.items()), list(tokenizer.bpe_ranks)]
            digest = f"sha256:{hashlib.sha256(canonical_json(rules)).hexdigest()}"
        else:
            digest = tokenizer_digest(tokenizer.tokenizer)
            settings = tokenizer_settings(tokenizer.tokenizer)
        return {
            "backend": f"open_clip_torch {version('open_clip_torch')}",
            "tokenizer": digest,
            "cleaning": tokenizer.clean_fn.__name__ if hasattr(tokenizer, "clean_fn") else None,
            "context_length": tokenizer.context_length,
            **settings,
        }


def _tokenizer(spec: EncoderSpec, tower: Tower) -> Any:
    """open_clip's own tokenizer, or around the one of transformers that the model names.

    Raises:
        EncoderError: it cannot be had, or `tokenizer=` names one that does not go with the model.
    """
    import open_clip
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer

    config = tower.config["text_cfg"]
    source, revision = config.get("hf_tokenizer_name"), None
    if source is None:
        if "tokenizer" in spec.options:
            raise EncoderError(
                f"encoder {spec}: {tower.name} has open_clip's own tokenizer; leave tokenizer= out"
            )
        return open_clip.get_tokenizer(tower.name)
    if "tokenizer" in spec.options:
        named = tokenizer_option(spec)
        source, revision = str(local_folder(named) or named.model), named.revision
    else:
        ways = "without a hub name its tokenizer: tokenizer=dir:FOLDER or pkg:PACKAGE/FOLDER"
        hub.check_files(replace(spec, revision=None), source, _TOKENIZER, ways=ways)
    with hub.clear_errors(spec):
        tokenizer: Any = HFTokenizer(
            source,
            context_length=config.get("context_length", DEFAULT_CONTEXT_LENGTH),
            tokenizer_mode=config.get("tokenizer_mode"),
            revision=revision or "main",
            **config.get("tokenizer_kwargs", {}),
        )
    check_tokenizer(spec, tokenizer.tokenizer, source, revision)
    size = config.get("vocab_size")  # none where transformers makes the tower
    if size is not None and len(tokenizer.tokenizer) > size:
        raise EncoderError(
            f"encoder {spec}: the tokenizer has {len(tokenizer.tokenizer)} tokens, the model {size}"
        )
    return tokenizer


def _untruncated_length(tokenizer: Any) -> Callable[[str], int]:
    """What gives the tokens of a whole text; open_clip's own tokenizer adds a first and a last."""
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is None:
        return lambda text: len(tokenizer.encode(text)) + 2
    whole = untruncated_length(inner)
    return lambda text: whole(tokenizer.clean_fn(text))


def _causal_mask(tower: Any, tokenizer: Any) -> torch.Tensor | None:
    """The attention mask of a tower that can leave out the padding; None of any other.

    It pools at a text's last token, which attends to nothing behind it.
    """
    at_the_end = getattr(tower, "pool_type", None) == "argmax" and tower.cls_emb is None
    if not (at_the_end and hasattr(tokenizer, "bpe_ranks")):  # it pads with the lowest id
        return None
    mask: torch.Tensor | None = tower.attn_mask
    return mask
