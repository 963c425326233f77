"""Records about a table's rows: commit records, the seal over them, withdrawals (FORMAT.md 4)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from vqa_cache.containers import CONTAINERS, SUFFIX, Container
from vqa_cache.errors import DamagedError
from vqa_cache.keys import KEY_BYTES, Keys
from vqa_cache.records.fields import Fields
from vqa_cache.records.names import HEX_32
from vqa_cache.records.record import Record, read_record, stamped
from vqa_cache.records.stored import Stored, expect_array, parse_stored
from vqa_cache.records.table import SpecRecord, TableRecord


@dataclass(frozen=True)
class Failure:
    """A planned key that has no row: its position among the planned ones, and why."""

    position: int
    error: str


@dataclass(frozen=True, kw_only=True)
class ShardRecord(Stored, Record):
    """The commit record of one shard.

    Attributes:
        table: the table's id.
        shard: the shard's name.
        planned: the planned keys joined, 16 bytes each.
        failed: by position.
        rows: planned keys without the failed ones.
        truncated: texts that the encoder cut; 0 also where they were not counted.
    """

    format = "vqa-cache/shard"

    table: str
    shard: str
    container: Container
    planned: bytes
    failed: tuple[Failure, ...]
    rows: int
    truncated: int = 0

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        shard = fields.text("shard", HEX_32)
        container = fields.choice("container", CONTAINERS)
        planned = _keys(fields, "planned")
        count = len(planned) // KEY_BYTES
        failed: list[Failure] = []
        for one in fields.listed("failed"):
            after = failed[-1].position + 1 if failed else 0
            failed.append(Failure(one.whole("position", after, count - 1), one.text("error")))
        rows = count - len(failed)
        name = f"shards/{shard}{SUFFIX[container]}"
        stored = parse_stored(fields, name, folder=container == "zarr")
        expect_array(stored, "keys", "uint8", (rows, KEY_BYTES), fields.where)
        return cls(
            table=fields.text("table", HEX_32),
            shard=shard,
            container=container,
            planned=planned,
            failed=tuple(failed),
            rows=fields.whole("rows", rows, rows),
            truncated=fields.whole("truncated", 1, count) if "truncated" in fields else 0,
            files=stored.files,
            arrays=stored.arrays,
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "shard": self.shard,
            "container": self.container,
            "planned": base64.b64encode(self.planned).decode(),
            "failed": [dict(vars(failure)) for failure in self.failed],
            "rows": self.rows,
            **({"truncated": self.truncated} if self.truncated else {}),
            **self.stored_json(),
        }

    @property
    def version(self) -> int:
        return 2 if any(array.dtype == "int8" for array in self.arrays.values()) else 1

    @property
    def planned_keys(self) -> Keys:
        """The planned keys, failed ones included, uint8 [planned, 16]."""
        return np.frombuffer(self.planned, np.uint8).reshape(-1, KEY_BYTES)

    @property
    def keys(self) -> Keys:
        """The keys of the rows, in row order, uint8 [rows, 16]."""
        return np.delete(self.planned_keys, [one.position for one in self.failed], axis=0)

    @property
    def failures(self) -> dict[bytes, str]:
        """Keys that could not be encoded -> the error."""
        keys = self.planned_keys
        return {keys[one.position].tobytes(): one.error for one in self.failed}


def read_shard_record(path: Path, table: TableRecord) -> ShardRecord:
    """A commit record of a table.

    Raises:
        FileNotFoundError, NewerFormatError, DamagedError: as `read_record`; the last also where it
            belongs to another table or shard, or its arrays are not as the table has them.
    """
    record = read_record(path, ShardRecord)
    check_membership(record, path.stem, table, str(path))
    return record


def check_membership(record: ShardRecord, name: str, table: TableRecord, where: str) -> None:
    """Raises DamagedError where a commit record is not that of a shard `name` of this table, or its
    arrays are not as the table's record says."""
    if (record.table, record.shard) != (table.id, name):
        raise DamagedError(
            f"{where}: belongs to table {record.table}, shard {record.shard}, expected table "
            f"{table.id}, shard {name}: it was copied from there"
        )
    tokens = None if table.ragged else record.rows
    expect_array(record, "rows", table.dtype, (tokens, *table.stored_shape), where)
    if table.ragged:
        expect_array(record, "offsets", "int64", (record.rows + 1,), where)
    if table.modality == "text":
        expect_array(record, "texts", "uint8", (None,), where)
        expect_array(record, "text_offsets", "int64", (record.rows + 1,), where)


@dataclass(frozen=True)
class WithdrawalRecord(Record):
    """Rows that are served no more.

    Attributes:
        table: the table's id.
        keys: distinct keys joined, 16 bytes each, in ascending order.
    """

    format = "vqa-cache/withdrawal"

    table: str
    keys: bytes
    reason: str

    @classmethod
    def make(cls, table: str, keys: Iterable[bytes], reason: str) -> Self:
        """The record that withdraws these keys."""
        return cls(table, b"".join(sorted(set(keys))), reason)

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        return cls(fields.text("table", HEX_32), _keys(fields, "keys"), fields.text("reason"))

    def as_json(self) -> dict[str, Any]:
        keys = base64.b64encode(self.keys).decode()
        return {"table": self.table, "keys": keys, "reason": self.reason}

    def split_keys(self) -> list[bytes]:
        """The keys one by one."""
        return [self.keys[i : i + KEY_BYTES] for i in range(0, len(self.keys), KEY_BYTES)]

    @property
    def file_name(self) -> str:
        """Of the record in `withdrawn/`."""
        digest = hashlib.sha256(bytes.fromhex(self.table) + self.keys).hexdigest()
        return f"{digest[:32]}.json"


@dataclass(frozen=True)
class SealRecord(Record):
    """All that was ever committed to a table in one: its record, and by name its commit records,
    its withdrawals and the specs that resolved to it."""

    format = "vqa-cache/seal"

    table: TableRecord
    records: Mapping[str, ShardRecord]
    withdrawals: Mapping[str, WithdrawalRecord]
    specs: Mapping[str, SpecRecord]

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        return cls(
            TableRecord.parse(fields.inner("table")),
            {name: ShardRecord.parse(one) for name, one in fields.named("records").items()},
            {
                name: WithdrawalRecord.parse(one)
                for name, one in fields.named("withdrawals").items()
            },
            {name: SpecRecord.parse(one) for name, one in fields.named("specs").items()},
        )

    def as_json(self) -> dict[str, Any]:
        kinds = ("records", "withdrawals", "specs")
        listed = {
            kind: {name: stamped(record) for name, record in getattr(self, kind).items()}
            for kind in kinds
        }
        return {"table": stamped(self.table), **listed}

    @property
    def version(self) -> int:
        return self.table.version


def _keys(fields: Fields, name: str) -> bytes:
    """A field of joined keys."""
    joined = fields.packed(name)
    if len(joined) % KEY_BYTES:
        raise fields.wrong(name, f"keys of {KEY_BYTES} bytes each, in base64")
    return joined
