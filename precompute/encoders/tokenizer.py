"""What identifies a tokenizer."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from vqa_cache.keys import canonical_json


def tokenizer_digest(tokenizer: Any) -> str:
    """`sha256:` and the hex digest of a fast tokenizer of transformers: vocabulary, rules and
    special tokens."""
    fast: Any = tokenizer.backend_tokenizer
    fast.no_truncation()  # state of the last call, not part of what the file says
    fast.no_padding()
    return f"sha256:{hashlib.sha256(canonical_json(json.loads(fast.to_str()))).hexdigest()}"
