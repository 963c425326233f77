"""Self-checking records: any change shows, newer versions are named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from vqa_cache.errors import CacheError, DamagedError, NewerFormatError
from vqa_cache.records import FORMAT_VERSION, encode_record, read_record

FIELDS: dict[str, Any] = {"name": "text/größe", "rows": 3, "shape": [4, 2], "none": None}


def written(folder: Path, content: bytes) -> Path:
    path = folder / "table.json"
    path.write_bytes(content)
    return path


def test_a_record_is_one_canonical_line_with_its_digest(tmp_path: Path) -> None:
    content = encode_record("table", FIELDS)
    assert content.endswith(b"}\n")
    assert content.count(b"\n") == 1
    record = json.loads(content)
    assert record["format"] == "vqa-cache/table"
    assert record["version"] == FORMAT_VERSION == 1
    digest = record.pop("digest")
    body = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert digest == hashlib.sha256(body.encode()).hexdigest()
    read = read_record(written(tmp_path, content), "table")
    assert {name: read[name] for name in FIELDS} == FIELDS


def test_the_caches_own_record_is_named_plainly() -> None:
    assert json.loads(encode_record("", {}))["format"] == "vqa-cache"


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_every_flipped_byte_is_found(tmp_path: Path, flip: int) -> None:
    content = encode_record("table", FIELDS)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= flip
        path = written(tmp_path, bytes(changed))
        with pytest.raises(CacheError, match=r"table\.json: "):
            read_record(path, "table")


def test_a_truncated_record_is_found(tmp_path: Path) -> None:
    content = encode_record("table", FIELDS)
    for length in range(len(content) - 1):  # the newline alone is no loss
        path = written(tmp_path, content[:length])
        with pytest.raises(DamagedError, match=r"table\.json: not valid JSON"):
            read_record(path, "table")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"null", b"[]", b"3", b'"vqa-cache/table"'])
def test_what_is_no_json_object_is_damaged(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DamagedError, match=r"table\.json: not "):
        read_record(written(tmp_path, content), "table")


def test_another_kind_of_record_is_not_taken(tmp_path: Path) -> None:
    path = written(tmp_path, encode_record("shard", FIELDS))
    with pytest.raises(DamagedError, match=r"not a vqa-cache/table record"):
        read_record(path, "table")


def test_a_newer_version_names_both(tmp_path: Path) -> None:
    content = encode_record("table", FIELDS).replace(b'"version":1', b'"version":12')
    with pytest.raises(NewerFormatError, match=r"format version 12, this program reads up to 1"):
        read_record(written(tmp_path, content), "table")


@pytest.mark.parametrize("version", [b"0", b'"1"', b"null", b"-1"])
def test_a_version_that_never_was_is_damage(tmp_path: Path, version: bytes) -> None:
    content = encode_record("table", FIELDS).replace(b'"version":1', b'"version":' + version)
    with pytest.raises(DamagedError, match="digest is wrong"):
        read_record(written(tmp_path, content), "table")


@pytest.mark.parametrize("value", [b"NaN", b"-Infinity", b'"\\ud800"', b"[" * 5000 + b"]" * 5000])
def test_json_that_has_no_canonical_form_is_damaged(tmp_path: Path, value: bytes) -> None:
    content = encode_record("table", {**FIELDS, "rows": 3}).replace(b'"rows":3', b'"rows":' + value)
    with pytest.raises(DamagedError, match=r"table\.json"):
        read_record(written(tmp_path, content), "table")


def test_a_missing_record_is_not_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path / "none.json", "table")
