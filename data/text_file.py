"""Reading text files whose lines have a place, so that every failure is one clear line."""

from __future__ import annotations

from pathlib import Path

from data.example import DatasetError


def text_lines(path: Path) -> list[str]:
    """Lines without their ends and outer blanks; empty ones at the end of the file do not count,
    others keep their place, since lines of several files may belong together. Raises DatasetError.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file, expected lines of text") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: byte {error.start} is not UTF-8; get the file again") from None
    # not splitlines(), which also ends a line at a form feed or U+2028
    lines = [line.strip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines
