"""One's own data as a table: `<root>/<split>.csv`, or `.tsv` with tabs between the columns.

    image,question,answer
    photos/1.jpg,is it raining?,no

The columns are the fields of `data.records`; others are not read, and an empty cell is none.
Several images, image ids or annotators' answers in one cell stand apart by "|" ("yes|yes|no"); an
`answer` is never taken apart. One file with a column `split` is as many splits as it names.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from data.example import DatasetError
from data.records import KEYS, Malformed, Record, Records, is_visible

SEPARATOR = "|"
_LISTS = ("image", "image_id", "answers")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Csv(Records):
    """Adapter of tables, see the module's docstring for the columns."""

    name = "csv"

    def found(self) -> Iterator[str]:
        for path in self._tables():
            yield from _splits_of(path)

    def remarks(self, split: str) -> list[str]:
        """Columns that are not read, a misspelt one among them."""
        told = []
        for path in self._tables():
            unread = [c for c in _columns(path) if c not in (*KEYS, "split")]
            if unread and split in _splits_of(path):
                named = ", ".join(map(repr, unread))
                told.append(f"{path}: columns {named} are not read; known: {', '.join(KEYS)}")
        return told

    def expected_files(self) -> list[str]:
        return ["train.csv", "val.csv", "test.csv"]

    def rows(self, split: str) -> Iterator[tuple[str, Record | Malformed]]:
        for path in self._tables():
            if split in _splits_of(path):
                for where, row in _rows(path):
                    if row.get("split", split) == split:
                        other = "more" if None in row else "fewer" if None in row.values() else ""
                        bad = Malformed(f"{other} cells than columns; is the file whole?")
                        yield where, bad if other else row

    def record(self, row: Record, split: str) -> Record:
        record = {key: value for key, value in row.items() if key in KEYS and value}
        for key in _LISTS:
            if SEPARATOR in record.get(key, ""):
                record[key] = record[key].split(SEPARATOR)
        if isinstance(record.get("answers"), str):
            record["answers"] = [record["answers"]]
        if record.get("question_id", "").isdecimal():
            record["question_id"] = int(record["question_id"])
        return record

    def _tables(self) -> list[Path]:
        found = (p for ending in _DELIMITERS for p in self.root.glob(f"*{ending}"))
        return sorted(filter(is_visible, found))


def _columns(path: Path) -> list[str]:
    for _, row in _rows(path):
        return [key for key in row if key is not None]
    return []


def _splits_of(path: Path) -> list[str]:
    """The file's name, or what its column `split` holds."""
    if "split" not in _columns(path):
        return [path.stem]
    return list(dict.fromkeys(row["split"] for _, row in _rows(path) if row["split"]))


def _rows(path: Path) -> Iterator[tuple[str, Record]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=_DELIMITERS[path.suffix], strict=True)
            missing = [key for key in ("image", "question") if key not in (reader.fieldnames or ())]
            if missing:
                raise DatasetError(
                    f"{path}: no column {' and '.join(missing)} in its first line; found: "
                    f"{', '.join(reader.fieldnames or ()) or 'none'}"
                )
            for row in reader:
                yield f"{path}:{reader.line_num}", row
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: byte {error.start} is not UTF-8; save it as UTF-8") from None
    except csv.Error as error:
        raise DatasetError(f"{path}: not a table: {error}; save it as CSV again") from None
