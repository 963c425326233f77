"""Content keys and digests (FORMAT.md sections 1 and 2)."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

KEY_BYTES = 16
Keys = npt.NDArray[np.uint8]  # [n, 16]


def text_key(text: str) -> bytes:
    """Key of a question or answer text: 16 bytes of the SHA-256 of its NFC form."""
    return hashlib.sha256(nfc(text).encode()).digest()[:KEY_BYTES]


def nfc(text: str) -> str:
    """The Unicode normal form that is keyed and encoded."""
    return unicodedata.normalize("NFC", text)


def image_key(path: str | Path) -> bytes:
    """Key of an image: 16 bytes of the SHA-256 of the file's bytes. Raises OSError."""
    with open(path, "rb") as file:
        return content_key(file)


def content_key(file: BufferedIOBase) -> bytes:
    """The same of an open file's bytes."""
    return hashlib.file_digest(file, "sha256").digest()[:KEY_BYTES]


def pack_keys(keys: list[bytes]) -> Keys:
    """Keys of 16 bytes each as one uint8 array [n, 16]."""
    return np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), KEY_BYTES)


def unpack_keys(keys: Keys) -> list[bytes]:
    """The inverse of `pack_keys`."""
    packed = np.ascontiguousarray(keys).tobytes()
    return [packed[i : i + KEY_BYTES] for i in range(0, len(packed), KEY_BYTES)]


def canonical_json(value: Any) -> bytes:
    """A JSON value written in the one way: keys sorted, no spaces. Raises ValueError on NaN."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def json_digest(value: Any) -> str:
    """Hex SHA-256 of the canonical form."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
