"""Tokenizers of transformers: loading one, where it cuts texts, and what identifies it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from precompute.encoders import hub
from precompute.encoders.options import choice_option, integer_option
from precompute.errors import EncoderError
from vqa_cache.keys import canonical_json
from vqa_cache.spec import EncoderSpec

_WHOLE, _SETTINGS = "tokenizer.json", "tokenizer_config.json"


def load_tokenizer(spec: EncoderSpec, source: str, revision: str | None) -> Any:
    """A fast tokenizer of transformers.

    Args:
        source: a hub's name or a folder.
        revision: of the hub.

    Raises:
        EncoderError: it cannot be had, or `check_tokenizer` refuses it.
    """
    from transformers import AutoTokenizer

    with hub.clear_errors(spec):
        tokenizer = AutoTokenizer.from_pretrained(
            source,
            revision=revision or "main",
            local_files_only=Path(source).is_dir(),
            trust_remote_code=False,
        )
    check_tokenizer(spec, tokenizer, source, revision)
    return tokenizer


def check_tokenizer(
    spec: EncoderSpec, tokenizer: Any, source: str, revision: str | None, subfolder: str = ""
) -> None:
    """Refuse a tokenizer that transformers made up: without its vocabulary every word is unknown,
    without its settings a cased one becomes lower case.

    Raises:
        EncoderError: one of its files is missing, or it is none of the fast ones.
    """
    names = getattr(tokenizer, "vocab_files_names", {})
    slow = [file for kind, file in names.items() if kind != "tokenizer_file"]
    settings, whole, parts = (
        [file for file in files if not hub.has_file(source, file, revision, subfolder)]
        for files in ([_SETTINGS], [_WHOLE], slow)
    )
    missing = settings + (whole if parts or not slow else [])
    if missing:
        raise EncoderError(
            f"encoder {spec}: its tokenizer lacks {' and '.join(missing)} in {source}, what "
            "transformers would make up instead is another; save_pretrained of the model's own "
            "tokenizer writes both"
        )
    if not tokenizer.is_fast:  # the identity is of the fast one's file
        raise EncoderError(f"encoder {spec}: its tokenizer has no {_WHOLE}")


def set_truncation_side(spec: EncoderSpec, tokenizer: Any) -> None:
    """Let the option `truncation_side` say which end of a text is cut, where it is given."""
    side = choice_option(spec, "truncation_side", ("right", "left"))
    if side is not None:
        tokenizer.truncation_side = side


def max_length_option(spec: EncoderSpec, module: torch.nn.Module, tokenizer: Any) -> int | None:
    """Tokens that the spec asks for. Raises EncoderError where the model has no such many."""
    if "max_length" not in spec.options:
        return None
    asked, least = integer_option(spec, "max_length", 0), tokenizer.num_special_tokens_to_add() + 1
    if not least <= asked <= positions(module):
        raise EncoderError(
            f"encoder {spec}: max_length={asked}: expected {least} to {positions(module)}, "
            "the model's positions"
        )
    return asked


def positions(module: torch.nn.Module) -> int:
    """Usable positions. RoBERTa and its kin count from behind the padding's position."""
    found = int(getattr(module.config, "max_position_embeddings", 512))
    for name, table in module.named_modules():
        if (
            name.endswith("position_embeddings")
            and isinstance(table, torch.nn.Embedding)
            and table.padding_idx is not None
        ):
            found = min(found, table.num_embeddings - table.padding_idx - 1)
    return found


def untruncated_length(tokenizer: Any) -> Callable[[str], int]:
    """What gives the tokens that a whole text has, special ones included. It uses a copy: other
    threads tokenise with the original, whose truncation is a state."""
    from tokenizers import Tokenizer

    whole: Any = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    whole.no_truncation()
    whole.no_padding()
    return lambda text: len(whole.encode(text).ids)


def tokenizer_settings(tokenizer: Any) -> dict[str, Any]:
    """What an identity says beside the digest: settings that tokenizer.json does not hold."""
    settings: dict[str, Any] = {"truncation": tokenizer.truncation_side}
    if getattr(tokenizer, "split_special_tokens", False):
        settings["split_special_tokens"] = True
    return settings


def tokenizer_digest(tokenizer: Any) -> str:
    """`sha256:` and the hex digest of a fast tokenizer of transformers: vocabulary, rules and
    special tokens."""
    fast: Any = tokenizer.backend_tokenizer
    fast.no_truncation()  # state of the last call, not part of what the file says
    fast.no_padding()
    return _digest(fast.to_str())


@lru_cache(maxsize=8)  # taps of one model share a tokenizer: 0.3 s each
def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(canonical_json(json.loads(text))).hexdigest()}"
