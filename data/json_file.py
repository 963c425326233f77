"""Reading JSON files so that every failure is one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data.example import DatasetError
from data.records import Malformed, Record


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


def json_lines(path: Path) -> Iterator[tuple[str, Record | Malformed]]:
    """(where, object) of a file with one JSON object a line; blank lines are skipped. A line that
    is none is a Malformed. Nothing is held. Raises DatasetError where the file cannot be read."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if line.strip():
                    yield f"{path}:{number}", _line(line)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from None


def _line(line: bytes) -> Record | Malformed:
    try:
        entry = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Malformed(f"byte {error.start} of the line is not UTF-8")
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at column {error.colno}"
        return Malformed(f"truncated or invalid JSON ({reason}), expected one object")
    except ValueError:
        return Malformed("a number of thousands of digits, expected one object")
    except RecursionError:
        return Malformed("JSON nested too deep, expected one flat object")
    if not isinstance(entry, dict):
        return Malformed(f"found a {type(entry).__name__}, expected a JSON object")
    return entry
