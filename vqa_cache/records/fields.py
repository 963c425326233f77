"""Taking the fields of a JSON object by type; whatever is not as expected is one error."""

from __future__ import annotations

import base64
import binascii
import math
import re
import reprlib
from collections.abc import Sequence
from typing import Any, TypeVar

from vqa_cache.errors import DamagedError

T = TypeVar("T", bound=str)
LARGEST = 2**63 - 1
_DEEPEST = 32  # of objects and lists in one another, in a field of free form
_Object = dict[str, Any]


class Fields:
    """The fields of one JSON object.

    Every method raises DamagedError where a field is absent, of another type or out of its range;
    the text names the file, the field's dotted path, what it holds and what was expected.
    """

    def __init__(self, value: object, where: str, path: str = "") -> None:
        """
        Args:
            where: the file, for messages.
            path: dotted path of the object in it.
        """
        self.where, self._path = where, path
        if not isinstance(value, dict):
            raise self._error(path or "the record", value, "an object")
        self._fields: _Object = value

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def names(self) -> list[str]:
        """Names of all fields, in order."""
        return sorted(self._fields)

    def wrong(self, name: str, expected: str) -> DamagedError:
        """The error about a field that is there and of the right type, but says the wrong thing."""
        return self._error(self._dotted(name), self._fields[name], expected)

    def text(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        """A text; with a pattern, one that matches it as a whole."""
        return self._text(self._dotted(name), self._get(name), pattern)

    def text_or_none(self, name: str) -> str | None:
        """A text or null."""
        return None if self._get(name) is None else self.text(name)

    def choice(self, name: str, known: Sequence[T]) -> T:
        """One of the texts that are known."""
        value = self._get(name)
        found = [one for one in known if isinstance(value, str) and one == value]
        if not found:
            raise self._error(self._dotted(name), value, f"one of {', '.join(known)}")
        return found[0]

    def whole(self, name: str, low: int = 0, high: int = LARGEST) -> int:
        """A whole number, both bounds included."""
        return self._whole(self._dotted(name), self._get(name), low, high)

    def whole_or_none(self, name: str, low: int = 0) -> int | None:
        """A whole number or null."""
        return None if self._get(name) is None else self.whole(name, low)

    def number_or_none(self, name: str) -> float | None:
        """A finite number or null."""
        value = self._get(name)
        if value is None:
            return None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or abs(value) > LARGEST or not math.isfinite(value):
            raise self._error(self._dotted(name), value, "a finite number or null")
        return float(value)

    def id_or_none(self, name: str) -> int | str | None:
        """An id: a text, a whole number of any size, or null."""
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, int | str | None):
            raise self._error(self._dotted(name), value, "a text, a whole number or null")
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._get(name)
        if not isinstance(value, bool):
            raise self._error(self._dotted(name), value, "true or false")
        return value

    def wholes(self, name: str, low: int = 0) -> tuple[int, ...]:
        """A list of whole numbers."""
        dotted = self._dotted(name)
        return tuple(
            self._whole(f"{dotted}[{i}]", one, low, LARGEST) for i, one in self._items(name)
        )

    def texts(self, name: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
        """A list of texts that match a pattern."""
        dotted = self._dotted(name)
        return tuple(self._text(f"{dotted}[{i}]", one, pattern) for i, one in self._items(name))

    def packed(self, name: str) -> bytes:
        """Bytes, written as base64."""
        text = self.text(name)
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):  # the latter: not ASCII
            raise self._error(self._dotted(name), text, "base64") from None

    def inner(self, name: str) -> Fields:
        """An object in this one."""
        return Fields(self._get(name), self.where, self._dotted(name))

    def listed(self, name: str) -> list[Fields]:
        """A list of objects."""
        dotted = self._dotted(name)
        return [Fields(one, self.where, f"{dotted}[{i}]") for i, one in self._items(name)]

    def named(self, name: str) -> dict[str, Fields]:
        """An object of objects, by name."""
        inner = self.inner(name)
        return {one: inner.inner(one) for one in inner.names()}

    def free(self, name: str) -> _Object:
        """An object of any form, nested no deeper than showing and comparing it allows."""
        value = self.inner(name)._fields
        level: list[Any] = [value]
        for _ in range(_DEEPEST):
            level = [inner for one in level for inner in _inside(one)]
            if not level:
                return value
        raise self._error(self._dotted(name), value, f"at most {_DEEPEST} levels")

    def text_map(self, name: str) -> dict[str, str]:
        """An object of texts."""
        inner = self.inner(name)
        return {one: inner.text(one) for one in inner.names()}

    def _get(self, name: str) -> Any:
        if name not in self._fields:
            raise DamagedError(f"{self.where}: has no field {self._dotted(name)}")
        return self._fields[name]

    def _items(self, name: str) -> enumerate[Any]:
        value = self._get(name)
        if not isinstance(value, list):
            raise self._error(self._dotted(name), value, "a list")
        return enumerate(value)

    def _text(self, dotted: str, value: object, pattern: re.Pattern[str] | None) -> str:
        if not isinstance(value, str):
            raise self._error(dotted, value, "a text")
        if pattern is not None and not pattern.fullmatch(value):
            raise self._error(dotted, value, f"a text like {pattern.pattern}")
        return value

    def _whole(self, dotted: str, value: object, low: int, high: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._error(dotted, value, f"a whole number from {low} to {high}")
        return value

    def _dotted(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _error(self, dotted: str, value: object, expected: str) -> DamagedError:
        return DamagedError(f"{self.where}: {dotted} is {reprlib.repr(value)}, expected {expected}")


def _inside(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
