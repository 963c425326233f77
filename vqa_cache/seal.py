"""The seal of a table: everything that was ever committed to it, listed once more (FORMAT.md 4.4).

Readers take what it lists together with the records that are not listed yet, so nothing that was
deleted or damaged is missed in silence; writers restore it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from vqa_cache.errors import CacheError, DamagedError
from vqa_cache.records.record import Record, encode_record, read_record
from vqa_cache.records.shard import (
    SealRecord,
    ShardRecord,
    WithdrawalRecord,
    check_membership,
    read_shard_record,
)
from vqa_cache.records.table import SpecRecord, TableRecord
from vqa_cache.system.durable import is_temporary, make_folder, write_file
from vqa_cache.withdrawals import FOLDER as WITHDRAWN
from vqa_cache.withdrawals import check_withdrawal, read_withdrawal

FILE = "seal.json"
TABLE = "table.json"
FOLDERS = {"records": "records", "withdrawals": WITHDRAWN, "specs": "specs"}  # by field of the seal
R = TypeVar("R", bound=Record)


def read_table_record(folder: Path) -> TableRecord:
    """A table's own record. Raises FileNotFoundError, NewerFormatError and DamagedError, the last
    also where it is another table's."""
    path = folder / TABLE
    record = read_record(path, TableRecord)
    if folder.absolute().parts[-4:] != tuple(record.name.split("/")):
        raise DamagedError(f"{path}: belongs to table {record.name}: it was copied from there")
    return record


def table_record(folder: Path) -> TableRecord:
    """A table's own record; where that is gone or damaged, what its seal says it was. Raises as
    `read_table_record` does."""
    try:
        return read_table_record(folder)
    except (FileNotFoundError, DamagedError) as error:
        with suppress(FileNotFoundError, CacheError):
            sealed = read_record(folder / FILE, SealRecord).table
            if folder.absolute().parts[-4:] == tuple(sealed.name.split("/")):
                return sealed
        if isinstance(error, FileNotFoundError):
            raise
        raise DamagedError(
            f"{error}; restore the file from a copy, or delete the table's folder and run stage 1 "
            "again"
        ) from error


def read_seal(folder: Path, table: TableRecord) -> SealRecord:
    """The seal of a table. Raises FileNotFoundError, NewerFormatError and DamagedError, the last
    also where it is another table's."""
    path = folder / FILE
    seal = read_record(path, SealRecord)
    if seal.table != table:
        raise DamagedError(f"{path}: its table is not that of table.json, {table.name}")
    for name, record in seal.records.items():
        check_membership(record, name, table, str(path))
    for name, withdrawal in seal.withdrawals.items():
        check_withdrawal(withdrawal, f"{name}.json", table, path)
    for name, spec in seal.specs.items():
        check_spec(spec, f"{name}.json", table, path)
    return seal


def valid_seal(folder: Path, table: TableRecord) -> SealRecord:
    """The same; an empty one where there is none, it is damaged or of a newer version: the records
    themselves are the truth."""
    with suppress(FileNotFoundError, CacheError):
        return read_seal(folder, table)
    return empty_seal(table)


def empty_seal(table: TableRecord) -> SealRecord:
    """A seal that lists nothing."""
    return SealRecord(table, {}, {}, {})


def commit_records(folder: Path, seal: SealRecord) -> dict[str, ShardRecord]:
    """Commit records by name: those of a seal and those that it does not list. Invalid ones count
    as absent. Raises NewerFormatError."""
    return {
        **seal.records,
        **_valid(folder / "records", seal.records, seal.table, read_shard_record),
    }


def spec_records(folder: Path, seal: SealRecord) -> dict[str, SpecRecord]:
    """Records of specs likewise."""
    return {**seal.specs, **_valid(folder / "specs", seal.specs, seal.table, read_spec)}


def withdrawal_records(folder: Path, seal: SealRecord) -> dict[str, WithdrawalRecord]:
    """Withdrawals likewise. Raises DamagedError where one is not valid: its rows would come back
    unseen."""
    paths = [path for path in record_files(folder / WITHDRAWN) if path.stem not in seal.withdrawals]
    found = {path.stem: read_withdrawal(path, seal.table) for path in paths}
    return {**seal.withdrawals, **found}


def _valid(
    folder: Path,
    listed: Collection[str],
    table: TableRecord,
    read: Callable[[Path, TableRecord], R],
) -> dict[str, R]:
    found = {}
    for path in record_files(folder):
        if path.stem not in listed:
            with suppress(DamagedError, FileNotFoundError):
                found[path.stem] = read(path, table)
    return found


def record_files(folder: Path) -> list[Path]:
    """The records in a folder of a table, valid or not, by name."""
    return sorted(path for path in folder.glob("*.json") if not is_temporary(path))


def read_spec(path: Path, table: TableRecord) -> SpecRecord:
    """The record of a spec of a table. Raises as `read_record` does, DamagedError also where it
    belongs to another."""
    record = read_record(path, SpecRecord)
    check_spec(record, path.name, table, path)
    return record


def check_spec(record: SpecRecord, name: str, table: TableRecord, where: Path) -> None:
    """Raises DamagedError where a spec's record is not that of a file of this table."""
    if name != record.spec.file_name:
        raise DamagedError(f"{where}: {name}: its name is not the digest of its spec")
    if record.table not in (None, table.id):
        raise DamagedError(f"{where}: {name}: belongs to table {record.table}, expected {table.id}")


def restore(folder: Path, table: TableRecord) -> None:
    """Write what a table's seal lists and what is missing or damaged. The lock is held."""
    seal = valid_seal(folder, table)
    try:
        read_table_record(folder)
    except (FileNotFoundError, DamagedError):
        write_file(folder / TABLE, encode_record(table))
    for field, part in FOLDERS.items():
        for name, record in getattr(seal, field).items():
            path = folder / part / f"{name}.json"
            with suppress(FileNotFoundError, CacheError):
                read_record(path, type(record))
                continue
            make_folder(path.parent, folder)
            write_file(path, encode_record(record))


def write_seal(folder: Path, seal: SealRecord) -> None:
    """Write a seal if it is not there already. The lock is held."""
    content = encode_record(seal)
    path = folder / FILE
    if not path.is_file() or path.read_bytes() != content:
        write_file(path, content)
