"""Reading JSON files so that every failure is one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.example import DatasetError


def read_json(
    path: Path, expected: str, object_hook: Callable[[dict[str, Any]], Any] | None = None
) -> Any:
    """Content of a JSON file; `expected` says in the error what it should have held.

    Raises DatasetError where the file is missing, unreadable, truncated or no JSON.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; expected {expected}") from None
    except OSError as error:
        reason = error.strerror or error
        raise DatasetError(f"{path}: cannot be read: {reason}; expected {expected}") from None
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: byte {error.start} is not UTF-8; expected {expected}; get the file again"
        ) from None
    try:
        return json.loads(text, object_hook=object_hook)
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{path}: truncated or invalid JSON at line {error.lineno} column {error.colno} "
            f"({len(text):,} characters read); expected {expected}; get the file again"
        ) from None
    except ValueError:
        raise DatasetError(
            f"{path}: holds a number of thousands of digits; expected {expected}; "
            "get the file again"
        ) from None
    except RecursionError:
        raise DatasetError(f"{path}: JSON nested too deep; expected {expected}") from None
