"""Names that become parts of paths: what a cache's records and folders may be called.

A record may come from anybody, so a name in it is checked where the record is read, once, and every
user of records may then put it behind a folder.
"""

from __future__ import annotations

import re

from vqa_cache.system.durable import is_temporary
from vqa_cache.system.lines import is_obeyed

HEX_16 = re.compile(r"[0-9a-f]{16}")
HEX_32 = re.compile(r"[0-9a-f]{32}")
HEX_64 = re.compile(r"[0-9a-f]{64}")
_LONGEST = 255  # bytes: of a name on the usual file systems


def is_part(name: str) -> bool:
    """Whether a text can be one file's or folder's name and nothing else: not empty, hidden from
    readers or a way upwards, no slash, nothing that a terminal obeys."""
    return (
        name not in ("", ".", "..")
        and "/" not in name
        and not is_temporary(name)
        and not any(map(is_obeyed, name))
        and len(name.encode()) <= _LONGEST
    )


def is_path(name: str) -> bool:
    """Whether a text is such names joined by slashes."""
    return all(map(is_part, name.split("/")))


def as_part(text: str) -> str:
    """A text as `is_part` wants it: what may not be in a name is written as its code point."""
    letters = (
        f"u{ord(letter):04x}" if is_obeyed(letter) else letter for letter in text.replace("/", "--")
    )
    name = "".join(letters)
    return name if is_part(name) else f"_{name}".rstrip(".")[: _LONGEST // 4] or "_"
