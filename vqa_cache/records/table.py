"""A table's record, and the specs that resolved to it (FORMAT.md section 3)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from vqa_cache.containers import CONTAINERS, Container
from vqa_cache.dtypes import STORED_TYPES, StoredType, row_bytes, stored_shape
from vqa_cache.errors import RefusedError
from vqa_cache.keys import json_digest
from vqa_cache.records.fields import Fields
from vqa_cache.records.names import HEX_32, as_part, is_part
from vqa_cache.records.record import Record

Modality = Literal["image", "text"]
MODALITIES: tuple[Modality, ...] = ("image", "text")
Precision = Literal["fp32", "bf16", "imported"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "imported")
PlanKind = Literal["in-order", "by-length", "by-tokens"]
PLAN_KINDS: tuple[PlanKind, ...] = ("in-order", "by-length", "by-tokens")

_LARGEST_ROW = 2**40  # bytes


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
    dtype: StoredType

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        """Raises DamagedError."""
        return cls(
            modality=fields.choice("modality", MODALITIES),
            library=fields.text("library"),
            model=fields.text_or_none("model"),
            revision=fields.text_or_none("revision"),
            weights=fields.text("weights"),
            architecture=fields.free("architecture"),
            preprocessing=fields.free("preprocessing"),
            tap=fields.text("tap"),
            pooling=fields.text("pooling"),
            dtype=fields.choice("dtype", STORED_TYPES),
        )

    def as_json(self) -> dict[str, Any]:
        """The identity as a JSON object."""
        return dict(vars(self))

    @property
    def id(self) -> str:
        """32 hex digits."""
        return json_digest(self.as_json())[:32]

    def table_name(self, label: str) -> str:
        """`<modality>/<library>.<model>/<tap>/<dtype>@<id8>`."""
        pooled = "" if self.pooling in ("none", self.tap) else "-" + self.pooling.replace("=", "")
        model, tap = as_part(f"{self.library}.{label}"), as_part(f"{self.tap}{pooled}")
        return f"{self.modality}/{model}/{tap}/{self.dtype}@{self.id[:8]}"


@dataclass(frozen=True)
class StoredSpec:
    """An encoder spec as a cache stores it: folders by their last name alone.

    Attributes:
        tap: named, also where a user left it to the family's default; None in hand-made caches.
    """

    family: str
    model: str
    revision: str | None
    tap: str | None
    options: Mapping[str, str]

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        """Raises DamagedError."""
        return cls(
            fields.text("family"),
            fields.text("model"),
            fields.text_or_none("revision"),
            fields.text_or_none("tap"),
            fields.text_map("options"),
        )

    def as_json(self) -> dict[str, Any]:
        """The spec as a JSON object."""
        return dict(vars(self))

    @property
    def file_name(self) -> str:
        """Of its record in `specs/`."""
        return f"{json_digest(self.as_json())[:16]}.json"


@dataclass(frozen=True)
class SpecRecord(Record):
    """A spec that resolved to the table.

    Attributes:
        table: the table's id; None in the record of an earlier version.
    """

    format = "vqa-cache/spec"

    spec: StoredSpec
    table: str | None = None

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        table = fields.text("table", HEX_32) if "table" in fields else None
        return cls(StoredSpec.parse(fields.inner("spec")), table)

    def as_json(self) -> dict[str, Any]:
        belongs = {} if self.table is None else {"table": self.table}
        return {"spec": self.spec.as_json(), **belongs}


@dataclass(frozen=True)
class BatchPlan:
    """How a shard's items are cut into batches (FORMAT.md section 3)."""

    kind: PlanKind
    size: int

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        """Raises DamagedError."""
        return cls(fields.choice("kind", PLAN_KINDS), fields.whole("size", 1))


@dataclass(frozen=True)
class Canaries:
    """Probe items' rows as they were stored (FORMAT.md section 3.3).

    Attributes:
        count: their number; of a ragged table that of all their tokens.
        rows: their bytes in the stored type.
        cosine_worst, cosine_mean: to fp32; None where unknown.
        underflow: share of values that the stored type keeps as 0 though they are not; None where
            unknown.
    """

    count: int
    rows: bytes
    cosine_worst: float | None
    cosine_mean: float | None
    underflow: float | None = None

    @classmethod
    def parse(cls, fields: Fields, row_bytes: int) -> Self:
        """Raises DamagedError."""
        count, rows = fields.whole("count"), fields.packed("rows")
        if len(rows) != count * row_bytes:
            raise fields.wrong("rows", f"{count} rows of {row_bytes} bytes")
        worst, mean = fields.number_or_none("cosine_worst"), fields.number_or_none("cosine_mean")
        lost = fields.number_or_none("underflow") if "underflow" in fields else None
        return cls(count, rows, worst, mean, lost)

    def as_json(self) -> dict[str, Any]:
        """The canaries as a JSON object."""
        said = {**vars(self), "rows": base64.b64encode(self.rows).decode()}
        if self.underflow is None:
            del said["underflow"]
        return said


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """What a table's record says beside its identity, in the words of FORMAT.md section 3.

    Attributes:
        row_shape: of one row; of one token where the table is ragged.
        device: None where unknown: an older or an imported table.
        environment: versions of the libraries that made the first rows.
    """

    row_shape: tuple[int, ...]
    ragged: bool
    container: Container
    rows_per_shard: int
    precision: Precision
    batch_plan: BatchPlan
    device: str | None = None
    threads: int
    canaries: Canaries
    environment: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class TableRecord(TableSettings, Record):
    """A table's record: what makes a row what it is, and how rows are made."""

    format = "vqa-cache/table"

    identity: Identity
    name: str
    spec: StoredSpec

    @classmethod
    def make(
        cls, identity: Identity, label: str, spec: StoredSpec, settings: TableSettings
    ) -> Self:
        """The record of a new table.

        Args:
            label: the model's name in the table's name.
        """
        said = {field.name: getattr(settings, field.name) for field in fields(TableSettings)}
        return cls(identity=identity, name=identity.table_name(label), spec=spec, **said)

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        identity = Identity.parse(fields.inner("identity"))
        if fields.text("id", HEX_32) != identity.id:
            raise fields.wrong("id", f"the digest of the identity, {identity.id}")
        fields.choice("modality", (identity.modality,))
        fields.choice("dtype", (identity.dtype,))
        name = fields.text("name")
        parts = name.split("/")
        ends = (parts[0], parts[-1]) == (identity.modality, f"{identity.dtype}@{identity.id[:8]}")
        if not (len(parts) == 4 and ends and all(map(is_part, parts))):
            raise fields.wrong(
                "name",
                f"{identity.modality}/<library>.<model>/<tap>/{identity.dtype}@{identity.id[:8]}",
            )
        row_shape = fields.wholes("row_shape", low=1)
        if not row_shape or row_bytes(row_shape, identity.dtype) > _LARGEST_ROW:
            raise fields.wrong("row_shape", "at least one size, and less than a terabyte")
        return cls(
            identity=identity,
            name=name,
            spec=StoredSpec.parse(fields.inner("spec")),
            row_shape=row_shape,
            ragged=fields.flag("ragged"),
            container=fields.choice("container", CONTAINERS),
            rows_per_shard=fields.whole("rows_per_shard", 1),
            precision=fields.choice("precision", PRECISIONS),
            batch_plan=BatchPlan.parse(fields.inner("batch_plan")),
            device=fields.text_or_none("device") if "device" in fields else None,
            threads=fields.whole("threads", 1),
            canaries=Canaries.parse(fields.inner("canaries"), row_bytes(row_shape, identity.dtype)),
            environment=fields.text_map("environment"),
        )

    def as_json(self) -> dict[str, Any]:
        said = dict(vars(self))
        if self.device is None:
            del said["device"]
        return {
            **said,
            "id": self.id,
            "modality": self.modality,
            "dtype": self.dtype,
            "identity": self.identity.as_json(),
            "spec": self.spec.as_json(),
            "row_shape": list(self.row_shape),
            "batch_plan": dict(vars(self.batch_plan)),
            "canaries": self.canaries.as_json(),
        }

    @property
    def id(self) -> str:
        """32 hex digits, from the identity."""
        return self.identity.id

    @property
    def modality(self) -> Modality:
        """What the rows are of."""
        return self.identity.modality

    @property
    def dtype(self) -> StoredType:
        """The stored type."""
        return self.identity.dtype

    @property
    def computed_in(self) -> Literal["fp32", "bf16"]:
        """What the encoder computes in. Raises RefusedError: the rows were imported."""
        if self.precision == "imported":
            raise RefusedError(f"table {self.name}: was imported; stage 1 adds no rows to it")
        return self.precision

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored row; of one token where the table is ragged."""
        return row_bytes(self.row_shape, self.dtype)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of one row, or token, as it is stored."""
        return stored_shape(self.row_shape, self.dtype)

    @property
    def version(self) -> int:
        return 2 if self.dtype == "int8" else 1

    @property
    def shown_shape(self) -> str:
        """Shape of a row as people read it: [50, 768]; [*, 768] has any number of tokens."""
        return f"[{', '.join([*(['*'] if self.ragged else []), *map(str, self.row_shape)])}]"
