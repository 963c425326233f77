"""Self-checking JSON records (FORMAT.md section 2): reading one into its type, writing it.

Every record is read by `read_record` or `parse_record` and by nothing else, so whoever holds one
may rely on its fields: types and ranges are as FORMAT.md says, names and paths stay in their place.
"""

from __future__ import annotations

import json
import stat
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from vqa_cache.errors import DamagedError, NewerFormatError
from vqa_cache.keys import canonical_json, json_digest
from vqa_cache.records.fields import Fields

FORMAT_VERSION = 2  # the newest; a record has the oldest that knows what it says
_DAMAGED_JSON = (ValueError, RecursionError)  # JSONDecodeError and UnicodeDecodeError are the first


class Record(ABC):
    """A parsed record: a frozen dataclass of one of FORMAT.md's formats."""

    format: ClassVar[str]

    @classmethod
    @abstractmethod
    def parse(cls, fields: Fields) -> Self:
        """Its fields, checked. Raises DamagedError."""

    @property
    def version(self) -> int:
        """The oldest format version that knows everything that the record says."""
        return 1

    @abstractmethod
    def as_json(self) -> dict[str, Any]:
        """Its fields but for `format`, `version` and `digest`."""


R = TypeVar("R", bound=Record)


class CacheRecord(Record):
    """CACHE.json, which says no more than what the folder is."""

    format = "vqa-cache"

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        return cls()

    def as_json(self) -> dict[str, Any]:
        return {}


def stamped(record: Record) -> dict[str, Any]:
    """A record as a whole JSON object."""
    whole = {**record.as_json(), "format": record.format, "version": record.version}
    return {**whole, "digest": json_digest(whole)}


def encode_record(record: Record) -> bytes:
    """The bytes of a record's file."""
    return canonical_json(stamped(record)) + b"\n"


def read_record(path: Path, kind: type[R]) -> R:
    """Read a record's file.

    Raises:
        FileNotFoundError: there is none; and other OSErrors, which say nothing about the record.
        NewerFormatError: it has a version that this program does not know.
        DamagedError: it is no valid record of this kind.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
        raise DamagedError(f"{path}: is no file, expected a {kind.format} record")
    return parse_record(path.read_bytes(), kind, path)


def parse_record(content: bytes, kind: type[R], where: Path | str) -> R:
    """A record from its file's bytes; raises as `read_record` does.

    Args:
        where: the file, for messages.
    """
    try:
        found = json.loads(content, parse_constant=_no_constant)
    except _DAMAGED_JSON as error:
        raise DamagedError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(found, dict) or found.get("format") != kind.format:
        raise DamagedError(f"{where}: not a {kind.format} record")
    version = found.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{where}: format version {version}, this program reads up to {FORMAT_VERSION}; "
            "update vqa-cache"
        )
    try:
        canonical = canonical_json(found) + b"\n" == content
        digest = found.pop("digest", None)
        expected = json_digest(found)
    except _DAMAGED_JSON as error:  # a lone surrogate, or nested too deeply
        raise DamagedError(f"{where}: has no canonical form ({error})") from error
    if digest != expected:
        raise DamagedError(f"{where}: the record's digest is wrong: it was changed or damaged")
    if not canonical:
        raise DamagedError(
            f"{where}: is not in canonical form (keys sorted, no blanks, one newline at its end)"
        )
    record = kind.parse(Fields(found, str(where)))
    if version != record.version:
        raise DamagedError(f"{where}: format version {version}, expected {record.version}")
    return record


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
