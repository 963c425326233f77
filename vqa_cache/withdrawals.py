"""Taking rows out of service (FORMAT.md section 4.5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vqa_cache.errors import CacheError, DamagedError
from vqa_cache.keys import image_key, text_key
from vqa_cache.records.names import HEX_32
from vqa_cache.records.record import encode_record, read_record
from vqa_cache.records.shard import WithdrawalRecord
from vqa_cache.system.durable import remove, write_file

if TYPE_CHECKING:
    from vqa_cache.cache import Cache

_FOLDER = "withdrawn"
_KEY = re.compile(r"[0-9a-fA-F]{32}")


def withdraw(folder: Path, table_id: str, keys: Iterable[bytes], reason: str) -> None:
    """Commit that rows with these keys are served no more, nor encoded again.

    Args:
        folder: the table's folder.
        reason: told where stage 1 or 2 misses the rows; no part of it may belong to one machine.
    """
    record = WithdrawalRecord.make(table_id, keys, reason)
    (folder / _FOLDER).mkdir(exist_ok=True)
    write_file(folder / _FOLDER / record.file_name, encode_record(record))


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


def withdrawn_keys(folder: Path, table_id: str) -> dict[bytes, str]:
    """Withdrawn keys -> why.

    Raises:
        DamagedError: a record of them is not valid: its rows would come back unseen.
    """
    found: dict[bytes, str] = {}
    for path in withdrawal_paths(folder):
        record = read_withdrawal(path, table_id)
        for key in record.split_keys():
            found.setdefault(key, f"withdrawn: {record.reason}")
    return found


def withdrawn_images(cache: Cache) -> set[bytes]:
    """Keys of images that any table of a cache withdrew. Raises DamagedError."""
    tables = [table for table in cache.tables.values() if table.modality == "image"]
    return {key for table in tables for key in table.withdrawn}


def drop_thumbnails(cache: Cache) -> None:
    """Delete the small pictures of withdrawn images, which none may have. Raises DamagedError."""
    for key in withdrawn_images(cache):
        if picture := cache.thumbnail(key.hex()):
            remove(picture)


def withdrawal_paths(folder: Path) -> list[Path]:
    """The withdrawal records of a table, valid or not; other files in their folder are none."""
    return sorted(path for path in (folder / _FOLDER).glob("*.json") if HEX_32.fullmatch(path.stem))


def read_withdrawal(path: Path, table_id: str) -> WithdrawalRecord:
    """A withdrawal record of a table. Raises DamagedError, NewerFormatError."""
    try:
        record = read_record(path, WithdrawalRecord)
        if path.name != record.file_name:
            raise DamagedError(f"{path}: its name is not the digest of its table and keys")
        if record.table != table_id:
            raise DamagedError(f"{path}: belongs to table {record.table}, expected {table_id}")
    except DamagedError as error:
        raise DamagedError(
            f"{error}; it says which rows are withdrawn: restore it from a copy, or delete it "
            "to serve them again"
        ) from error
    except OSError as error:
        raise CacheError(f"{path}: cannot be read ({error.strerror})") from error
    return record
