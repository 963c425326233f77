"""One large JSON file, entry after entry: a million questions are never held at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from data.example import DatasetError

CHUNK = 1 << 20  # characters read at a time
_DECODER = json.JSONDecoder()
_BLANKS = " \t\n\r"


class _Invalid(Exception):
    """Not the JSON that was expected; the text says what instead."""


class _Text:
    """A file's characters, of which those behind are dropped."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._text, self._at, self._dropped = file, "", 0, 0
        self._chunk = CHUNK

    @property
    def place(self) -> int:
        """Characters read so far."""
        return self._dropped + self._at

    def peek(self) -> str:
        """The next character that is no blank; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANKS:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, *expected: str) -> str:
        """The next character, which has to be one of those expected."""
        found = self.peek()
        if found not in expected:
            told = repr(found) if found else "the end"
            raise _Invalid(f"found {told}, expected {' or '.join(map(repr, expected))}")
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        self._chunk = CHUNK
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._more():
                    raise _Invalid(error.msg) from None
                continue
            except ValueError:
                raise _Invalid("a number of thousands of digits") from None
            # a number may go on behind the end of what was read
            if end < len(self._text) or not self._more():
                self._at = end
                return value

    def _more(self) -> bool:
        new = self._file.read(self._chunk)
        self._chunk *= 2  # a value of many chunks is not parsed once a chunk
        self._dropped += self._at
        self._text, self._at = self._text[self._at :] + new, 0
        return bool(new)


def json_entries(path: Path, expected: str, within: str | None = None) -> Iterator[tuple[str, Any]]:
    """(key, value) of a file's object, or (place, value) of its list, in the file's order.

    Args:
        expected: what the file should hold, for the error.
        within: the entries of this list or object of the file's object instead.

    Raises:
        DatasetError: missing, unreadable, truncated, no JSON, or no list or object there.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = _Text(file)
            try:
                if within is not None:
                    _find(text, within)
                yield from _entries(text)
            except (_Invalid, RecursionError) as error:
                told = error if isinstance(error, _Invalid) else "nested too deep"
                raise DatasetError(
                    f"{path}: truncated or invalid JSON at character {text.place:,}: {told}; "
                    f"expected {expected}; get the file again"
                ) from None
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; expected {expected}") from None
    except OSError as error:
        reason = error.strerror or error
        raise DatasetError(f"{path}: cannot be read: {reason}; expected {expected}") from None
    except UnicodeDecodeError:
        raise DatasetError(
            f"{path}: holds bytes that are not UTF-8; expected {expected}; get the file again"
        ) from None


def _find(text: _Text, key: str) -> None:
    """Go to the value of a key of the file's object."""
    for found in _keys(text):
        if found == key:
            return
        text.value()
    raise _Invalid(f"no list {key!r}")


def _keys(text: _Text) -> Iterator[str]:
    """Keys of an object; its value is read between one and the next."""
    text.take("{")
    if text.peek() == "}":
        text.take("}")
        return
    while True:
        key = text.value() if text.peek() == '"' else text.take('"')
        text.take(":")
        yield key
        if text.take(",", "}") == "}":
            return


def _entries(text: _Text) -> Iterator[tuple[str, Any]]:
    if text.peek() == "{":
        for key in _keys(text):
            yield key, text.value()
        return
    text.take("[", "{")
    if text.peek() == "]":
        text.take("]")
        return
    for place in range(2**62):
        yield str(place), text.value()
        if text.take(",", "]") == "]":
            return
