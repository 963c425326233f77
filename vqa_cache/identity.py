"""What makes a table's rows what they are, and beginning a table (FORMAT.md section 3)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqa_cache.cache import Cache
from vqa_cache.errors import DamagedError
from vqa_cache.keys import json_digest
from vqa_cache.records import encode_record, read_record
from vqa_cache.spec import EncoderSpec, Modality
from vqa_cache.system.durable import create_file, write_file
from vqa_cache.table import Table

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Identity:
    """Everything that a row depends on; two tables are the same exactly if these agree.

    Attributes:
        model: the model's name, None for a local folder (its content identifies it).
        revision: the resolved one, or None.
        weights: from `weights_digest`.
        architecture: the resolved configuration, activations included.
        preprocessing: the resolved one, with backend and version.
        pooling: "none", "mean", "grid=4", ...
        dtype: the stored type.
    """

    modality: Modality
    library: str
    model: str | None
    revision: str | None
    weights: str
    architecture: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    tap: str
    pooling: str
    dtype: str

    def as_json(self) -> dict[str, Any]:
        """The identity as a JSON object."""
        return asdict(self)

    @property
    def id(self) -> str:
        """32 hex digits."""
        return json_digest(self.as_json())[:32]

    def table_name(self, label: str) -> str:
        """`<modality>/<library>.<model>/<tap>/<dtype>@<id8>`."""
        pooled = "" if self.pooling in ("none", self.tap) else "-" + self.pooling.replace("=", "")
        model = label.replace("/", "--")
        return (
            f"{self.modality}/{self.library}.{model}/{self.tap}{pooled}/{self.dtype}@{self.id[:8]}"
        )


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
    cache: Cache, identity: Identity, label: str, spec: EncoderSpec, settings: Mapping[str, Any]
) -> Table:
    """Create the table's record, or adopt the one that another writer created first.

    Args:
        label: the model's name in the table's name.
        spec: what was typed, its tap named.
        settings: `row_shape`, `ragged`, `container`, `rows_per_shard`, `precision`, `batch_plan`,
            `device`, `threads`, `canaries`, `environment`.
    """
    name = identity.table_name(label)
    folder = cache.path / "tables" / name
    for part in ("specs", "shards", "records"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    fields = {
        **settings,
        "identity": identity.as_json(),
        "id": identity.id,
        "name": name,
        "modality": identity.modality,
        "dtype": identity.dtype,
        "spec": spec.portable(),
    }
    create_file(folder / "table.json", encode_record("table", fields))
    cache.__dict__.pop("tables", None)
    return Table(folder)


def add_spec(table: Table, spec: EncoderSpec) -> None:
    """Note that a spec resolved to this table, so that stage 2 finds it by what a user types."""
    fields = {"spec": spec.portable()}
    path = Path(table.folder) / "specs" / f"{json_digest(spec.portable())[:16]}.json"
    try:
        read_record(path, "spec")
    except (FileNotFoundError, DamagedError):
        path.parent.mkdir(exist_ok=True)
        write_file(path, encode_record("spec", fields))
