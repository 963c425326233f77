"""The commit record of a split's columns (FORMAT.md section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vqa_cache.errors import DamagedError
from vqa_cache.keys import KEY_BYTES
from vqa_cache.records.fields import Fields
from vqa_cache.records.names import HEX_64, is_part
from vqa_cache.records.record import Record, read_record
from vqa_cache.records.stored import Stored, expect_array, parse_stored


@dataclass(frozen=True)
class Skipped:
    """What a split lacks.

    Attributes:
        what: "example" or "image".
        id: its id as given; None for an example that has none.
    """

    what: str
    id: int | str | None
    error: str

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        """Raises DamagedError."""
        what = "image" if "image" in fields else "example"
        return cls(what, fields.id_or_none(what), fields.text("error"))

    def as_json(self) -> dict[str, Any]:
        """As an element of the `skipped` field."""
        return {self.what: self.id, "error": self.error}


@dataclass(frozen=True, kw_only=True)
class SplitRecord(Stored, Record):
    """The commit record of one generation of a split.

    Attributes:
        examples: their number n.
        annotated: whether the split has answers.
        limit: how many examples were asked for; None for all.
        content: hex SHA-256 over the columns, `annotated`, `limit` and `skipped`.
    """

    format = "vqa-cache/examples"

    dataset: str
    split: str
    generation: int
    examples: int
    annotated: bool
    limit: int | None
    content: str
    skipped: tuple[Skipped, ...]

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        generation = fields.whole("generation", 1)
        stored = parse_stored(fields, f"{generation:06d}.h5", folder=False)
        examples = fields.whole("examples")
        for name in ("dataset", "split"):
            if not is_part(fields.text(name)):
                raise fields.wrong(name, "the name of a folder")
        _check_columns(stored, examples, fields.where)
        return cls(
            dataset=fields.text("dataset"),
            split=fields.text("split"),
            generation=generation,
            examples=examples,
            annotated=fields.flag("annotated"),
            limit=fields.whole_or_none("limit"),
            content=fields.text("content", HEX_64),
            skipped=tuple(map(Skipped.parse, fields.listed("skipped"))),
            files=stored.files,
            arrays=stored.arrays,
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "split": self.split,
            "generation": self.generation,
            "examples": self.examples,
            "annotated": self.annotated,
            "limit": self.limit,
            "content": self.content,
            "skipped": [one.as_json() for one in self.skipped],
            **self.stored_json(),
        }

    @property
    def name(self) -> str:
        """The split's, "<dataset>/<split>"."""
        return f"{self.dataset}/{self.split}"


def _check_columns(stored: Stored, examples: int, where: str) -> None:
    """Raises DamagedError where an array of FORMAT.md section 5 is not there as it has to be."""

    def expect(name: str, dtype: str, *shape: int | None) -> tuple[int, ...]:
        return expect_array(stored, name, dtype, shape, where).shape

    def expect_texts(name: str, count: int | None) -> None:
        expect(f"{name}_bytes", "uint8", None)
        edges = expect(f"{name}_offsets", "int64", None if count is None else count + 1)
        if not edges[0]:
            raise DamagedError(f"{where}: array '{name}_offsets' is empty, expected one edge more")

    for name in ("question_positions", "answer", "question_type", "answer_type"):
        expect(name, "int32", examples)
    expect("answers", "int32", None)
    expect("answers_offsets", "int64", examples + 1)
    if "image_offsets" in stored.arrays:
        expect("image_offsets", "int64", examples + 1)
        expect("image_positions", "int32", None)
    else:
        expect("image_positions", "int32", examples)
    expect("image_keys", "uint8", None, KEY_BYTES)
    questions, _ = expect("question_keys", "uint8", None, KEY_BYTES)
    for name in ("question_id", "image_id"):
        if name in stored.arrays:
            expect(name, "int64", examples)
        else:
            expect_texts(name, examples)
    expect_texts("question_text", questions)
    for name in ("answer_text", "question_type_text", "answer_type_text"):
        expect_texts(name, None)


def read_split_record(path: Path) -> SplitRecord:
    """The record of one generation of a split, `<dataset>/<split>/<generation>.json`.

    Raises:
        FileNotFoundError, NewerFormatError, DamagedError: as `read_record`; the last also where it
            belongs to another split or generation.
    """
    record = read_record(path, SplitRecord)
    place = Path(path).absolute().parent
    expected = (place.parent.name, place.name, path.stem)
    found = (record.dataset, record.split, f"{record.generation:06d}")
    if found != expected:
        raise DamagedError(
            f"{path}: belongs to {'/'.join(found)}, expected {'/'.join(expected)}: it was copied "
            "from there"
        )
    return record
