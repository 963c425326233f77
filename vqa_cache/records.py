"""Self-checking JSON records (FORMAT.md section 2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from vqa_cache.errors import DamagedError, NewerFormatError
from vqa_cache.keys import canonical_json, json_digest

FORMAT_VERSION = 1
Record = dict[str, Any]
Kind = Literal["", "table", "spec", "shard", "withdrawal", "examples", "seal"]


def encode_record(kind: Kind, fields: Record) -> bytes:
    """The bytes of a record with its format, version and digest added, or renewed."""
    record = {**fields, "format": _format(kind), "version": FORMAT_VERSION}
    record.pop("digest", None)
    record["digest"] = json_digest(record)
    return canonical_json(record) + b"\n"


def _format(kind: Kind) -> str:
    return f"vqa-cache/{kind}" if kind else "vqa-cache"


def check_record(record: object, kind: Kind, where: Path | str) -> Record:
    """The record itself, if it is valid.

    Raises:
        NewerFormatError: it has a version that this program does not know.
        DamagedError: it is of another format, or its digest is wrong.
    """
    expected = _format(kind)
    if not isinstance(record, dict) or record.get("format") != expected:
        raise DamagedError(f"{where}: not a {expected} record")
    version = record.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{where}: format version {version}, this program reads up to {FORMAT_VERSION}; "
            "update vqa-cache"
        )
    body = {name: value for name, value in record.items() if name != "digest"}
    try:
        digest = json_digest(body)
    except (ValueError, RecursionError) as error:  # a lone surrogate, or nested too deeply
        raise DamagedError(f"{where}: has no canonical form ({error})") from error
    if version != FORMAT_VERSION or record.get("digest") != digest:
        raise DamagedError(f"{where}: the record's digest is wrong: it was changed or damaged")
    return record


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def read_record(path: Path, kind: Kind) -> Record:
    """Read and check a record. Raises FileNotFoundError, and what `check_record` raises."""
    try:
        record = json.loads(path.read_bytes(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError too
        raise DamagedError(f"{path}: not valid JSON ({error})") from error
    return check_record(record, kind, path)
