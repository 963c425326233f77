"""What makes a table's rows what they are, and beginning a table (FORMAT.md section 3)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vqa_cache.cache import Cache
from vqa_cache.errors import DamagedError
from vqa_cache.records.record import encode_record
from vqa_cache.records.table import Identity, SpecRecord, TableRecord, TableSettings
from vqa_cache.seal import FILE as SEAL
from vqa_cache.seal import read_spec
from vqa_cache.spec import EncoderSpec
from vqa_cache.system.durable import create_file, make_folder, write_file
from vqa_cache.table import Table

if TYPE_CHECKING:
    import torch


def weights_digest(state: Mapping[str, torch.Tensor]) -> str:
    """`sha256:` and the hex digest over a state dictionary: names, types, shapes and bytes."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        for text in (name, str(tensor.dtype).removeprefix("torch."), str(list(tensor.shape))):
            digest.update(len(text.encode()).to_bytes(8, "little") + text.encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.numpy().data)
    return f"sha256:{digest.hexdigest()}"


def find_by_id(cache: Cache, table_id: str) -> Table | None:
    """The table with this id, whatever its name."""
    return next((table for table in cache.tables.values() if table.id == table_id), None)


def begin_table(
    cache: Cache, identity: Identity, label: str, spec: EncoderSpec, settings: TableSettings
) -> Table:
    """Create the table's record, or adopt the one that another writer created first.

    Args:
        label: the model's name in the table's name.
        spec: what was typed, its tap named.
    """
    record = TableRecord.make(identity, label, spec.portable(), settings)
    folder = cache.path / "tables" / record.name
    for part in ("specs", "shards", "records"):
        make_folder(folder / part, cache.path)
    create_file(folder / "table.json", encode_record(record))
    cache.__dict__.pop("tables", None)
    if not (folder / SEAL).exists():
        Table(folder).seal()
    return Table(folder)


def add_spec(table: Table, spec: EncoderSpec) -> None:
    """Note that a spec resolved to this table, so that stage 2 finds it by what a user types."""
    stored = spec.portable()
    path = table.folder / "specs" / stored.file_name
    try:
        read_spec(path, table.record)
    except (FileNotFoundError, DamagedError):
        make_folder(path.parent, table.folder)
        write_file(path, encode_record(SpecRecord(stored, table.id)))
