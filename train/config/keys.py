"""Dotted keys ("head.hidden") and the values that a user types for them.

Apart from config.py so that looking at runs needs neither torch nor the heads.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one: dotted key -> value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def parse_value(text: str) -> Any:
    """A TOML value (number, boolean, quoted text, list), or the text itself."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    plain = isinstance(parsed["value"], bool | int | float | str | list)
    return parsed["value"] if plain and len(parsed) == 1 else text
