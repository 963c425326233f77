"""Tokenizers of transformers: loading one, and what identifies it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from precompute.encoders import hub
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


def tokenizer_digest(tokenizer: Any) -> str:
    """`sha256:` and the hex digest of a fast tokenizer of transformers: vocabulary, rules and
    special tokens."""
    fast: Any = tokenizer.backend_tokenizer
    fast.no_truncation()  # state of the last call, not part of what the file says
    fast.no_padding()
    return f"sha256:{hashlib.sha256(canonical_json(json.loads(fast.to_str()))).hexdigest()}"
