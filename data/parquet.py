"""Parquet files in the hub's layout, images in their rows or beside them.

    data/<split>-00000-of-00002.parquet, ...     also <split>-*.parquet, <split>/*.parquet,
                                                 <split>.parquet, and one folder further down

The columns are the fields of `data.records`, and as datasets on the hub have them:

- `image`: a struct of `bytes` and `path`, or bytes, or a text (a path under the root); `images`: a
  list of such. Where a struct has no bytes, its path counts.
- `answers`: a list of texts, or of structs with an `answer`; `answer`: a text, or a list of texts.
- `multiple_choice_answer`: the majority answer, as VQA has it.

Needs pyarrow (`pip install 'vqa-cache[parquet]'`). Rows are read in batches without their images,
which stage 1 reads where they lie: nothing is unpacked, and a picture that is in many rows is
encoded once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.example import DatasetError
from data.members import parquet_file
from data.records import KEYS, Malformed, Record, Records, is_visible, shown, texts_of

_PART = re.compile(r"(.+?)-\d+(-of-\d+)?")  # train-00000-of-00002, train-0000
_NUMBER = re.compile(r"\d+")
_PICTURES = ("image", "images")
_READ = (*KEYS, "multiple_choice_answer")
_ROWS = 4096  # a batch


class Parquet(Records):
    """Adapter of parquet files, see the module's docstring for their places and columns."""

    name = "parquet"

    def found(self) -> Iterator[str]:
        return (_split_of(path) for path in self._every())

    def paths(self, split: str) -> list[Path]:
        return [path for path in self._every() if _split_of(path) == split]

    def expected_files(self) -> list[str]:
        return [f"data/{split}-*.parquet" for split in ("train", "validation", "test")]

    def rows(self, split: str) -> Iterator[tuple[str, Any]]:
        for path in self.paths(split):
            try:
                yield from self._rows(path)
            except DatasetError:
                raise
            except (OSError, ValueError) as error:  # what pyarrow raises for a damaged page
                told = " ".join(str(error).split())[:200]
                raise DatasetError(f"{path}: cannot be read: {told}; get the file again") from None

    def _rows(self, path: Path) -> Iterator[tuple[str, Any]]:
        file = parquet_file(str(path))
        names = file.schema_arrow.names
        column = next((name for name in _PICTURES if name in names), None)
        if column is None or "question" not in names:
            raise DatasetError(
                f"{path}: no column {'question' if column else 'image or images'}; found: "
                f"{', '.join(names)}"
            )
        pictures = self._pictures(file, path, column)
        wanted = [name for name in _READ if name in names and name not in _PICTURES]
        number = 0
        for batch in file.iter_batches(batch_size=_ROWS, columns=wanted):
            for row in batch.to_pylist():
                yield f"{path}: row {number}", {**row, "image": next(pictures)}
                number += 1

    def _pictures(self, file: Any, path: Path, column: str) -> Iterator[Any]:
        """The paths of each row's pictures."""
        inside = path.relative_to(self.root).as_posix()
        kind = _kind(file, column)
        if kind == "bytes":  # not read here, however long they are
            for number in range(file.metadata.num_rows):
                yield f"{inside}::{column}/{number}"
            return
        number = 0
        for batch in file.iter_batches(
            batch_size=_ROWS if kind == "paths" else 64, columns=[column]
        ):
            for cell in batch.column(0).to_pylist():
                yield _places(cell, f"{inside}::{column}/{number}")
                number += 1

    def record(self, row: Record, split: str) -> Record:
        record = {key: value for key, value in row.items() if value is not None}
        if isinstance(record.get("answer"), list):
            record.setdefault("answers", record.pop("answer"))
        if "answers" in record:
            record["answers"] = texts_of(record["answers"], "answer")
        chosen = record.pop("multiple_choice_answer", None)
        if chosen is not None:
            record["answer"] = chosen
        if record.get("image") is None:
            raise Malformed(f"image is {shown(row.get('image'))}, expected a picture or a path")
        return record

    def _every(self) -> list[Path]:
        patterns = ("*.parquet", "*/*.parquet", "*/*/*.parquet")
        found = (path for pattern in patterns for path in self.root.glob(pattern))
        return sorted(path for path in found if is_visible(path))


def _kind(file: Any, column: str) -> str:
    """ "bytes" in every row, "paths" alone, or "mixed": told by the statistics, without reading."""
    metadata, nulls = file.metadata, 0
    leaves = [i for i in range(metadata.num_columns)
              if metadata.row_group(0).column(i).path_in_schema in (column, f"{column}.bytes")
              ] if metadata.num_row_groups else []  # fmt: skip
    if not leaves or file.schema_arrow.field(column).type in ("string", "large_string"):
        return "mixed" if "list" in str(file.schema_arrow.field(column).type) else "paths"
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(leaves[0]).statistics
        if statistics is None or not statistics.has_null_count:
            return "mixed"
        nulls += statistics.null_count
    return {0: "bytes", metadata.num_rows: "paths"}.get(nulls, "mixed")


def _places(cell: Any, place: str) -> Any:
    """Where the pictures of a cell are: in it, or at the path that it holds."""
    if isinstance(cell, list):
        return [_places(one, f"{place}/{number}") for number, one in enumerate(cell)]
    if isinstance(cell, bytes):
        return place
    if isinstance(cell, dict):
        return place if cell.get("bytes") is not None else cell.get("path")
    return cell


def _split_of(path: Path) -> str:
    """From the file's name; of files named by numbers alone, or by no split, from the folder's."""
    stem = path.stem
    part = _PART.fullmatch(stem)
    name = part[1] if part else stem
    name = path.parent.name if _NUMBER.fullmatch(name) else name
    return {"validation": "val", "valid": "val", "dev": "val"}.get(name, name)
