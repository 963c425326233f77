"""What a command prints about names that anybody may have chosen."""

from __future__ import annotations

import unicodedata

_OBEYED = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, line separators


def is_obeyed(letter: str) -> bool:
    """Whether a character ends a line, moves a cursor or cannot be written at all."""
    return unicodedata.category(letter) in _OBEYED


def one_line(text: object) -> str:
    """A text without what ends a line or what a terminal obeys, written as escapes instead."""
    return "".join(
        letter.encode("unicode_escape").decode() if is_obeyed(letter) else letter
        for letter in str(text)
    )
