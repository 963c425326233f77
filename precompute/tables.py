"""Finding or beginning the table that an encoder fills, without loading the encoder if possible."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from precompute.errors import PrecomputeError
from precompute.folders import local_folder
from precompute.versions import library_versions
from vqa_cache.cache import Cache
from vqa_cache.dtypes import SHORT_NAMES, ShortName, StoredType
from vqa_cache.errors import RefusedError
from vqa_cache.identity import add_spec, begin_table, find_by_id
from vqa_cache.memo import Memo, file_stat
from vqa_cache.records.table import BatchPlan, TableRecord, TableSettings
from vqa_cache.shard import ROWS_PER_SHARD
from vqa_cache.spec import EncoderSpec, Modality, parse_spec
from vqa_cache.table import Table

if TYPE_CHECKING:
    from precompute.encode import Tapped
    from precompute.encoders.base import Encoder

# of identities: raised when they are made in another way, so that no memo answers for the old one
_RULES = 2
COSINE_TOLD = 0.999  # the canaries' worst to fp32, below which int8 is told
UNDERFLOW_TOLD = 0.001  # of the canaries' values, that fp16 stores as zero
_COMMIT_HASH = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class EncoderSettings:
    """How a new table is made; None and "auto" leave the choice to it. A table that exists keeps to
    what it recorded, and another explicit value is refused.

    Attributes:
        dtype: stored type; part of the identity, so another is another
            table.
    """

    dtype: ShortName = "fp16"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    batch_size: int | None = None
    container: Literal["hdf5", "zarr"] | None = None
    rows_per_shard: int | None = None

    @property
    def stored(self) -> StoredType:
        """The stored type's full name."""
        return SHORT_NAMES[self.dtype]


@dataclass
class OpenedTable:
    """A table to fill, and its encoder once it was needed."""

    table: Table
    spec: EncoderSpec
    modality: Modality
    encoder: Encoder | None = None
    _begun_now: bool = False
    notes: tuple[str, ...] = ()  # what to tell about an encoder and a table just opened

    def ready(self, loaded: Iterable[Encoder] = ()) -> Tapped:
        """The table with its encoder, loaded and where it computes, its canaries being unchanged.

        Args:
            loaded: encoders that may lend their model.

        Raises:
            EncoderError: the encoder cannot be loaded.
            RefusedError: the canaries changed.
        """
        from precompute.canaries import check_drift
        from precompute.encode import Tapped
        from precompute.encoders import load_encoder
        from precompute.numerics import Numerics
        from vqa_cache.system.device import choose_device

        if self.encoder is None:
            encoder = load_encoder(self.spec, self.modality, loaded)
            if encoder.identity(self.table.dtype).id != self.table.id:  # remembered by files' times
                raise RefusedError(
                    f"encoder {self.spec}: its files hold another encoder now than the one that "
                    f"table {self.table.name} was begun with; say --rehash, which begins another "
                    "table"
                )
            self.encoder = encoder
        self.encoder.to(choose_device())
        if not self._begun_now:
            check_drift(self.table, self.encoder, Numerics(self.table.record.computed_in))
            self._begun_now = True
        return Tapped(self.table, self.encoder)

    def shares_pass(self, spec: EncoderSpec, modality: Modality) -> bool:
        """Whether a spec differs from this table's in tap and raster alone."""
        return self.modality == modality and self.spec.without_tap() == spec.without_tap()


def open_table(
    cache: Cache,
    memo: Memo,
    spec: EncoderSpec,
    modality: Modality,
    settings: EncoderSettings,
    *,
    remembered: bool = True,
    beside: Sequence[OpenedTable] = (),
) -> OpenedTable:
    """The table for a spec: remembered, found by its identity, or begun.

    Args:
        remembered: whether what the memo says may stand for loading the encoder.
        beside: tables that are open already. They may lend a model; a new table computes like those
            that share its forward pass.

    Raises:
        RefusedError: it exists and was begun with other settings.
        EncoderError: the encoder cannot be loaded.
    """
    spec = spec.with_default_tap(modality)
    evidence = _evidence(spec, modality, settings)
    known = memo.table_id(evidence) if evidence is not None and remembered else None
    table = find_by_id(cache, known) if known is not None else None
    if table is not None:
        _check_settings(table, settings)
        add_spec(table, spec)
        return OpenedTable(table, spec, modality)

    from precompute.encoders import load_encoder

    same_pass = [one for one in beside if one.shares_pass(spec, modality)]
    encoder = load_encoder(
        spec, modality, [one.encoder for one in same_pass if one.encoder is not None]
    )
    identity = encoder.identity(settings.stored)
    table = find_by_id(cache, identity.id)
    begun_now = table is None
    if table is None:
        like = same_pass[0].table.record if same_pass else None
        made = _new_settings(encoder, modality, settings, like)
        table = begin_table(cache, identity, encoder.label, spec, made)
        begun_now = table.record.canaries == made.canaries  # else another writer's was adopted
    _check_settings(table, settings)
    add_spec(table, spec)
    if evidence is not None:
        memo.remember_table(evidence, table.id)
    notes = (*encoder.notes, *(_notes(table) if begun_now else ()))
    return OpenedTable(table, spec, modality, encoder, begun_now, notes)


def _notes(table: Table) -> tuple[str, ...]:
    """What whoever begins a table should know before it is filled."""
    canaries, share = table.record.canaries, table.record.canaries.underflow
    if table.dtype == "int8":  # small values beside large ones become 0: the cosine counts them
        worst = canaries.cosine_worst
        if worst is None or worst >= COSINE_TOLD:
            return ()
        return (
            f"{table.name}: the probe items' worst cosine to fp32 is {worst:.6f}, below "
            f"{COSINE_TOLD}; --dtype fp16 keeps rows better",
        )
    if share is None or share < UNDERFLOW_TOLD:
        return ()
    return (
        f"{table.name}: {share:.1%} of the probe items' values are too small for {table.dtype} "
        "and stored as 0; --dtype bf16 or fp32 keeps them",
    )


def _check_settings(table: Table, settings: EncoderSettings) -> None:
    record = table.record
    asked = {
        "--precision": (None if settings.precision == "auto" else settings.precision,
                        record.precision),
        "--batch-size": (settings.batch_size, _recorded_batch_size(record.batch_plan)),
        "--format": (settings.container, record.container),
        "--rows-per-shard": (settings.rows_per_shard, record.rows_per_shard),
    }  # fmt: skip
    for option, (wanted, recorded) in asked.items():
        if wanted is not None and wanted != recorded:
            raise RefusedError(
                f"table {table.name}: was begun with {option} {recorded}, asked for {wanted}; "
                f"leave the option out, or name another --cache"
            )


def _recorded_batch_size(plan: BatchPlan) -> int | str:
    by_tokens = plan.kind == "by-tokens"
    return f"left out ({plan.size:,} tokens a batch)" if by_tokens else plan.size


def _new_settings(
    encoder: Encoder, modality: Modality, settings: EncoderSettings, like: TableRecord | None
) -> TableSettings:
    """Everything that a new table's record says beside its identity.

    Args:
        like: the record of a table that shares its forward pass: how it computes is how this does.
    """
    import torch

    from precompute.canaries import measure
    from precompute.computing import Computing, choose_computing
    from precompute.independence import check_independence
    from precompute.numerics import Numerics
    from vqa_cache.system.device import CPU, choose_device, device_name

    encoder.to(choose_device())
    check_independence(encoder)
    if like is None:
        computing = choose_computing(encoder, settings)
    else:
        computing = Computing(like.computed_in, like.batch_plan)
    measured = measure(encoder, Numerics(computing.precision), settings.stored)
    device = device_name(encoder.device)
    encoder.to(CPU)  # until it encodes: others are opened meanwhile, and may need the memory
    return TableSettings(
        row_shape=encoder.row_shape,
        ragged=encoder.ragged,
        container=settings.container or "hdf5",
        rows_per_shard=settings.rows_per_shard or ROWS_PER_SHARD[modality],
        precision=computing.precision,
        batch_plan=computing.batch_plan,
        device=device,
        threads=torch.get_num_threads(),
        canaries=measured.recorded(),
        environment=library_versions(),
    )


def _evidence(spec: EncoderSpec, modality: Modality, settings: EncoderSettings) -> object | None:
    """What an identity follows from without loading anything; None where a hub decides."""
    files: list[Path] = []
    named = [spec]
    if "tokenizer" in spec.options:
        named.append(parse_spec(spec.options["tokenizer"]))
    for part in named:
        folder = local_folder(part)
        if folder is not None:
            files += sorted(path for path in folder.rglob("*") if path.is_file())
        elif "weights" in part.options:
            files.append(Path(part.options["weights"]))
        elif "random" not in part.options and not _COMMIT_HASH.fullmatch(part.revision or ""):
            return None  # a hub decides what this means today
    try:
        stats = {str(path.resolve()): file_stat(path) for path in files}
    except OSError as error:
        raise PrecomputeError(f"encoder {spec}: {error.filename}: {error.strerror}") from error
    return {
        "rules": _RULES,
        "spec": str(spec),
        "modality": modality,
        "dtype": settings.stored,
        "versions": library_versions(),
        "files": stats,
    }
