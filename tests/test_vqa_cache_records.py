"""Self-checking records: any change shows, newer versions are named, every field has its type."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import begin, commit, numbered_keys

from vqa_cache.errors import CacheError, DamagedError, NewerFormatError
from vqa_cache.keys import canonical_json, json_digest
from vqa_cache.records.names import as_part, is_part
from vqa_cache.records.record import (
    CacheRecord,
    Record,
    encode_record,
    parse_record,
    read_record,
)
from vqa_cache.records.shard import SealRecord, ShardRecord, WithdrawalRecord, read_shard_record
from vqa_cache.records.table import SpecRecord, StoredSpec, TableRecord

SPEC = SpecRecord(StoredSpec("timm", "größe", None, "tap", {"grid": "4"}))


def written(folder: Path, content: bytes) -> Path:
    path = folder / "table.json"
    path.write_bytes(content)
    return path


def redone(content: bytes, **changes: Any) -> bytes:
    """A record with other fields (None takes one away) and the digest that goes with them."""
    record = json.loads(content)
    for dotted, value in changes.items():
        *way, last = dotted.split("__")
        place: Any = record
        for name in way:
            place = place[int(name) if name.isdecimal() else name]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    record.pop("digest", None)
    return canonical_json({**record, "digest": json_digest(record)}) + b"\n"


def test_a_record_is_one_canonical_line_with_its_digest(tmp_path: Path) -> None:
    content = encode_record(SPEC)
    assert content.endswith(b"}\n")
    assert content.count(b"\n") == 1
    record = json.loads(content)
    assert record["format"] == "vqa-cache/spec"
    assert record["version"] == SPEC.version == 1
    digest = record.pop("digest")
    body = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert digest == hashlib.sha256(body.encode()).hexdigest()
    assert read_record(written(tmp_path, content), SpecRecord) == SPEC


def test_the_caches_own_record_is_named_plainly() -> None:
    assert json.loads(encode_record(CacheRecord()))["format"] == "vqa-cache"


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_every_flipped_byte_is_found(flip: int) -> None:
    content = encode_record(SPEC)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= flip
        with pytest.raises(CacheError, match=r"^here: "):
            parse_record(bytes(changed), SpecRecord, "here")


def test_a_truncated_record_is_found() -> None:
    content = encode_record(SPEC)
    for length in range(len(content) - 1):
        with pytest.raises(DamagedError, match=r"^here: not valid JSON"):
            parse_record(content[:length], SpecRecord, "here")


@pytest.mark.parametrize("change", [b"", b"\n\n", b" \n", b"\r\n"])
def test_blanks_at_the_end_are_found(change: bytes) -> None:
    with pytest.raises(DamagedError, match=r"^here: is not in canonical form"):
        parse_record(encode_record(SPEC)[:-1] + change, SpecRecord, "here")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"null", b"[]", b"3", b'"vqa-cache/spec"'])
def test_what_is_no_json_object_is_damaged(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DamagedError, match=r"table\.json: not "):
        read_record(written(tmp_path, content), SpecRecord)


def test_what_is_no_file_is_damaged(tmp_path: Path) -> None:
    """A pipe under a record's name would be waited for until the end of time."""
    os.mkfifo(tmp_path / "table.json")
    with pytest.raises(DamagedError, match=r"table\.json: is no file"):
        read_record(tmp_path / "table.json", SpecRecord)
    with pytest.raises(DamagedError, match="is no file"):
        read_record(tmp_path, SpecRecord)


def test_another_kind_of_record_is_not_taken() -> None:
    with pytest.raises(DamagedError, match=r"not a vqa-cache/table record"):
        parse_record(encode_record(SPEC), TableRecord, "here")


def test_a_newer_version_names_both() -> None:
    content = encode_record(SPEC).replace(b'"version":1', b'"version":12')
    with pytest.raises(NewerFormatError, match=r"format version 12, this program reads up to 2"):
        parse_record(content, SpecRecord, "here")


@pytest.mark.parametrize("version", [b"0", b'"1"', b"null", b"-1", b"1" + b"0" * 5000])
def test_a_version_that_never_was_is_damage(version: bytes) -> None:
    content = encode_record(SPEC).replace(b'"version":1', b'"version":' + version)
    with pytest.raises(DamagedError, match=r"digest is wrong|not valid JSON"):
        parse_record(content, SpecRecord, "here")


@pytest.mark.parametrize("value", [b"NaN", b"-Infinity", b'"\\ud800"', b"[" * 5000 + b"]" * 5000])
def test_json_that_has_no_canonical_form_is_damaged(value: bytes) -> None:
    content = encode_record(SPEC).replace('"größe"'.encode(), value)
    with pytest.raises(DamagedError, match=r"^here: "):
        parse_record(content, SpecRecord, "here")


def test_a_missing_record_is_not_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path / "none.json", SpecRecord)


# ---------------------------------------------------------------- right digest, wrong content


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A table of texts with one shard of three rows and a failure, sealed."""
    made = begin(tmp_path_factory.mktemp("records") / "cache", modality="text", container="zarr")
    commit(made, ["a", "b", "c", "d"], [[1, 2, 3, 4]] * 4, failed={1: "broken"})
    made.seal()
    return made


def content(table: Any, kind: type[Record]) -> bytes:
    folder = table.folder
    if kind is ShardRecord:
        return next((folder / "records").iterdir()).read_bytes()
    if kind is WithdrawalRecord:
        return encode_record(WithdrawalRecord.make(table.id, numbered_keys(2), "asked"))
    if kind is SpecRecord:
        return encode_record(SPEC)
    return (folder / ("table.json" if kind is TableRecord else "seal.json")).read_bytes()


@pytest.mark.parametrize(
    "kind", [TableRecord, SpecRecord, ShardRecord, SealRecord, WithdrawalRecord]
)
def test_what_is_read_is_what_was_written(table: Any, kind: type[Record]) -> None:
    whole = content(table, kind)
    assert encode_record(parse_record(whole, kind, "here")) == whole


ID, OTHER = "0" * 32, "f" * 32
WRONG_TABLE: list[tuple[dict[str, Any], str]] = [
    ({"name": "../../../x"}, r"name is '../../../x', expected text/"),
    ({"name": "text/../pooled/float16@00000000"}, "expected text/"),
    ({"name": 3}, "name is 3, expected a text"),
    ({"id": ID}, "id is .*, expected the digest of the identity"),
    ({"identity__tap": "other"}, "expected the digest of the identity"),
    ({"identity__dtype": "float64"}, "identity.dtype is 'float64', expected one of float16"),
    ({"identity": None}, "identity is None, expected an object"),
    ({"dtype": "float32"}, "dtype is 'float32', expected one of float16"),
    ({"modality": "image"}, "modality is 'image', expected one of text"),
    ({"row_shape": []}, "row_shape is .*, expected at least one size"),
    ({"row_shape": [2**62, 2**62]}, "less than a terabyte"),
    ({"row_shape": [0]}, r"row_shape\[0\] is 0, expected a whole number from 1"),
    ({"row_shape": "ab"}, "row_shape is 'ab', expected a list"),
    ({"ragged": 1}, "ragged is 1, expected true or false"),
    ({"container": "tar"}, "container is 'tar', expected one of hdf5, zarr"),
    ({"rows_per_shard": True}, "rows_per_shard is True, expected a whole number"),
    ({"threads": 10**400}, "threads is 1000"),
    ({"batch_plan": {}}, "has no field batch_plan.kind"),
    ({"canaries": []}, r"canaries is \[\], expected an object"),
    ({"canaries__count": 7}, "canaries.rows is .*, expected 7 rows of 8 bytes"),
    ({"canaries__rows": "no base64"}, "canaries.rows is 'no base64', expected base64"),
    ({"canaries__cosine_worst": "1"}, "cosine_worst is '1', expected a finite number or null"),
    ({"spec__options": {"grid": 4}}, "spec.options.grid is 4, expected a text"),
    ({"environment": ...}, "has no field environment"),
]
WRONG_SHARD: list[tuple[dict[str, Any], str]] = [
    ({"planned": "no base64"}, "planned is 'no base64', expected base64"),
    ({"planned": base64.b64encode(b"1").decode()}, "planned is .*, expected keys of 16 bytes"),
    ({"planned": None}, "planned is None, expected a text"),
    ({"rows": 4}, "rows is 4, expected a whole number from 3 to 3"),
    ({"failed": [{"position": -1, "error": "x"}]}, "position is -1, expected a whole number"),
    ({"failed": [{"position": 4, "error": "x"}]}, "position is 4, expected .* from 0 to 3"),
    ({"failed": [{"position": 1, "error": "x"}] * 2}, r"failed\[1\].position is 1, expected .*2"),
    ({"failed": {"position": 1}}, "failed is .*, expected a list"),
    ({"files": []}, r"files is \[\], expected at least one file"),
    ({"files__0__path": "/etc/passwd"}, r"files\[0\].path is '/etc/passwd', expected shards/"),
    ({"files__0__path": "shards/x.zarr/../../x"}, r"files\[0\].path .* expected shards/"),
    ({"files__0__bytes": -1}, r"files\[0\].bytes is -1"),
    ({"arrays__rows": ...}, "array 'rows' is not there"),
    ({"arrays__keys": ...}, "array 'keys' is not there"),
    ({"arrays__text_offsets": ...}, "array 'text_offsets' is not there"),
    ({"arrays": None}, "arrays is None, expected an object"),
    ({"arrays__rows__offset": 2**70}, "offset is 1180591620717411303424, expected a whole number"),
    ({"arrays__rows__offset": 8}, "offset is 8, expected a multiple of 2 up to 0"),
    ({"arrays__rows__file": 99}, "arrays.rows.file is 99"),
    ({"arrays__rows__dtype": "object"}, "arrays.rows.dtype is 'object'"),
    ({"arrays__rows__shape": [2**40, 2**40]}, "arrays.rows.shape is .*, expected at most"),
    ({"arrays__rows__shape": [4, 4]}, "arrays.rows.bytes is 24, expected a whole number from 32"),
    ({"arrays__rows__shape": [4, 3]}, r"array 'rows' is float16\[4, 3\], expected float16\[3, 4\]"),
    ({"arrays__rows__blocks": []}, r"blocks is \[\], expected 1 checksums"),
    ({"arrays__rows__blocks": ["zz"]}, r"blocks\[0\] is 'zz', expected a text like"),
    ({"table": OTHER}, f"belongs to table {OTHER}, .* it was copied from there"),
    ({"table": "../x"}, "table is '../x', expected a text like"),
    ({"shard": "../../x"}, "shard is '../../x', expected a text like"),
]


def named(cases: list[tuple[dict[str, Any], str]]) -> list[Any]:
    return [pytest.param(*case, id=f"{i}-{next(iter(case[0]))}") for i, case in enumerate(cases)]


@pytest.mark.parametrize(("changes", "message"), named(WRONG_TABLE))
def test_a_table_record_of_wrong_content_is_damaged(
    table: Any, changes: dict[str, Any], message: str
) -> None:
    changed = redone(content(table, TableRecord), **changes)
    with pytest.raises(DamagedError, match=f"^here: .*{message}") as caught:
        parse_record(changed, TableRecord, "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("changes", "message"), named(WRONG_SHARD))
def test_a_commit_record_of_wrong_content_is_damaged(
    table: Any, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{table.shards[0].shard}.json"
    path.write_bytes(redone(content(table, ShardRecord), **changes))
    with pytest.raises(DamagedError, match=message) as caught:
        read_shard_record(path, table.record)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (SealRecord, {"records": 5}, "records is 5, expected an object"),
        (SealRecord, {"records": {ID: 5}}, f"records.{ID} is 5, expected an object"),
        (SealRecord, {"records": {ID: {}}}, f"has no field records.{ID}.shard"),
        (WithdrawalRecord, {"keys": "AA=="}, "keys is 'AA==', expected keys of 16 bytes"),
        (WithdrawalRecord, {"reason": ["x"]}, "reason is .*, expected a text"),
        (SpecRecord, {"spec": {"family": "timm"}}, "has no field spec.model"),
        (SpecRecord, {"spec__options": [1]}, "spec.options is .*, expected an object"),
        (SpecRecord, {"spec__revision": 3}, "spec.revision is 3, expected a text"),
    ],
)
def test_other_records_of_wrong_content_are_damaged(
    table: Any, kind: type[Record], changes: dict[str, Any], message: str
) -> None:
    changed = redone(content(table, kind), **changes)
    with pytest.raises(DamagedError, match=f"^here: {message}"):
        parse_record(changed, kind, "here")


@pytest.mark.parametrize("depth", [33, 400])
def test_nesting_is_bounded(table: Any, depth: int) -> None:
    """What compares or shows an identity goes down into it."""
    nested: Any = {}
    for _ in range(depth):
        nested = {"a": nested}
    changed = redone(content(table, TableRecord), identity__architecture=nested)
    with pytest.raises(DamagedError, match=r"identity.architecture is .*at most 32 levels"):
        parse_record(changed, TableRecord, "here")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", ".tmp-x", "a\nb", "\x1b[2J", "a\0", "\ud800", "\u2028", "ä" * 200],
)
def test_names_that_are_no_part_of_a_path(name: str) -> None:
    assert not is_part(name)
    assert is_part(as_part(name))


@pytest.mark.parametrize("name", ["a", "größe 2", "timm.resnet18", "...", ".hidden", "日本"])
def test_names_that_are(name: str) -> None:
    assert is_part(name)
    assert as_part(name) == name
