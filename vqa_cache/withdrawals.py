"""Taking rows out of service (FORMAT.md section 4.5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vqa_cache.contents import list_contents, picture_path
from vqa_cache.errors import CacheError, DamagedError
from vqa_cache.keys import image_key, text_key
from vqa_cache.records.record import encode_record, read_record
from vqa_cache.records.shard import WithdrawalRecord
from vqa_cache.records.table import TableRecord
from vqa_cache.system.durable import make_folder, remove, write_file

if TYPE_CHECKING:
    from vqa_cache.cache import Cache

FOLDER = "withdrawn"
_KEY = re.compile(r"[0-9a-fA-F]{32}")


def withdraw(folder: Path, table_id: str, keys: Iterable[bytes], reason: str) -> None:
    """Commit that rows with these keys are served no more, nor encoded again.

    Args:
        folder: the table's folder.
        reason: told where stage 1 or 2 misses the rows; no part of it may belong to one machine.
    """
    record = WithdrawalRecord.make(table_id, keys, reason)
    make_folder(folder / FOLDER, folder)
    write_file(folder / FOLDER / record.file_name, encode_record(record))


def chosen_keys(
    modality: str, *, keys: str | None, images: Sequence[str], texts: Sequence[str]
) -> list[bytes]:
    """Keys of what a user names.

    Args:
        keys: a file with one key a line, 32 hex digits.
        images: image files, for a table of images.
        texts: for a table of texts.

    Raises:
        CacheError: a file cannot be read, a line is no key, or the items are of the other modality.
    """
    other = images if modality == "text" else texts
    if other:
        raise CacheError(f"{other[0]!r} is not what the table holds, which is {modality}s")
    found = [text_key(text) for text in texts]
    try:
        found += [image_key(image) for image in images]
        lines = Path(keys).read_text("utf-8-sig").split() if keys else []
    except (OSError, UnicodeDecodeError) as error:
        raise CacheError(f"{getattr(error, 'filename', keys)}: cannot be read ({error})") from error
    for number, line in enumerate(lines, 1):
        if not _KEY.fullmatch(line):
            raise CacheError(f"{keys}: key {number} is {line!r}, expected 32 hex digits")
        found.append(bytes.fromhex(line))
    return found


def withdrawn_images(cache: Cache) -> set[bytes]:
    """Keys of images that any table of a cache withdrew. Raises DamagedError."""
    tables = [table for table in cache.tables.values() if table.modality == "image"]
    return {key for table in tables for key in table.withdrawn}


def drop_thumbnails(cache: Cache) -> None:
    """Delete the small pictures of withdrawn images, which none may have. Raises DamagedError."""
    gone = [key.hex() for key in withdrawn_images(cache)]
    for key in gone:
        remove(picture_path(cache.path, key))
    list_contents(cache.path, gone=gone)


def read_withdrawal(path: Path, table: TableRecord) -> WithdrawalRecord:
    """A withdrawal record of a table. Raises FileNotFoundError, DamagedError, NewerFormatError."""
    try:
        record = read_record(path, WithdrawalRecord)
        check_withdrawal(record, path.name, table, path)
    except DamagedError as error:
        raise DamagedError(
            f"{error}; it says which rows are withdrawn: restore it from a copy, or delete it "
            "to serve them again"
        ) from error
    return record


def check_withdrawal(record: WithdrawalRecord, name: str, table: TableRecord, where: Path) -> None:
    """Raises DamagedError where a withdrawal record is not that of a file of this table."""
    if name != record.file_name:
        raise DamagedError(f"{where}: {name}: its name is not the digest of its table and keys")
    if record.table != table.id:
        raise DamagedError(f"{where}: {name}: belongs to table {record.table}, expected {table.id}")
