"""`--dry-run`: rows, bytes and time, with nothing written."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from data.registry import open_dataset
from precompute.items import Wanted
from precompute.pipeline import Job, Request, collect_splits, jobs
from precompute.plan import make_plan
from vqa_cache.cache import Cache, open_cache
from vqa_cache.dtypes import row_bytes
from vqa_cache.identity import find_by_id
from vqa_cache.memo import Memo
from vqa_cache.records.table import Identity

if TYPE_CHECKING:
    from precompute.encoders.base import Encoder
    from precompute.numerics import Numerics

_MINIMUM_SECONDS = 0.5


@dataclass(frozen=True)
class Estimate:
    """What encoding for one table would take."""

    table: str
    wanted: int
    missing: int
    bytes: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def estimate(request: Request) -> list[Estimate]:
    """Rows, bytes and seconds that `precompute` with this request would take."""
    dataset = open_dataset(request.dataset, request.root)
    exists = (Path(request.cache) / "CACHE.json").exists()
    cache = open_cache(request.cache) if exists else None
    wanted = Wanted()
    remembered = Path(request.cache) / "memo.sqlite"
    with TemporaryDirectory() as folder:
        if remembered.is_file():  # a copy: known images are not hashed, and nothing is written
            shutil.copy(remembered, folder)
        memo = Memo(Path(folder) / "memo.sqlite")
        for _split in collect_splits(request, dataset, memo, wanted):
            pass
        memo.close()
    loaded: list[Prospect] = []
    for job in jobs(request, wanted):
        loaded.append(_look(request, cache, job, loaded))
    groups: dict[object, list[Prospect]] = {}
    for one in loaded:  # several taps of a model go in one pass, whose time they share
        groups.setdefault((id(one.encoder.module), one.numerics, tuple(one.missing)), []).append(
            one
        )
    measured = {id(one): found for some in groups.values() for one, found in _share(some)}
    return [_estimate(one, *measured[id(one)]) for one in loaded]


@dataclass(frozen=True, eq=False)
class Prospect:
    """A job with its encoder, its table where there is one, and what that lacks."""

    job: Job
    encoder: Encoder
    identity: Identity
    numerics: Numerics
    missing: list[bytes]


def _look(request: Request, cache: Cache | None, job: Job, loaded: Sequence[Prospect]) -> Prospect:
    from precompute.encoders import load_encoder
    from precompute.independence import check_independence
    from precompute.numerics import Numerics
    from vqa_cache.system.device import choose_device

    encoder = load_encoder(job.spec, job.modality, [one.encoder for one in loaded])
    identity = encoder.identity(job.settings.stored)
    encoder.to(choose_device())
    table = find_by_id(cache, identity.id) if cache is not None else None
    missing = list(job.sources)
    if table is None:
        check_independence(encoder)
    else:
        plan = make_plan(table, job.sources, retry_failed=request.retry_failed)
        missing = [key for shard in plan.shards for key in shard.keys]
    same_model = [one.numerics for one in loaded if one.encoder.module is encoder.module]
    if not missing:
        numerics = Numerics("fp32")
    elif table is not None:
        numerics = Numerics(table.record.computed_in)
    else:
        numerics = same_model[0] if same_model else _chosen(encoder, job)
    return Prospect(job, encoder, identity, numerics, missing)


def _chosen(encoder: Encoder, job: Job) -> Numerics:
    """What a new table would be computed in: as asked for, or as a probe chooses."""
    from precompute.computing import choose_computing
    from precompute.numerics import Numerics

    return Numerics(choose_computing(encoder, job.settings).precision)


def _share(group: Sequence[Prospect]) -> Iterator[tuple[Prospect, tuple[float, float]]]:
    """Of each table of a pass its share of the seconds an item takes, and its rows an item."""
    first = group[0]
    sources = [first.job.sources[key] for key in first.missing[:64]]
    encoders = [one.encoder for one in group]
    seconds, tokens = _measure(encoders, first.numerics, sources)
    for one in group:
        yield one, (seconds / len(group), tokens if one.encoder.ragged else 1.0)


def _estimate(one: Prospect, seconds: float, rows: float) -> Estimate:
    return Estimate(
        one.identity.table_name(one.encoder.label),
        len(one.job.sources),
        len(one.missing),
        round(len(one.missing) * rows * row_bytes(one.encoder.row_shape, one.identity.dtype)),
        round(len(one.missing) * seconds, 1),
    )


def _measure(
    encoders: Sequence[Encoder], numerics: Numerics, sources: list[str]
) -> tuple[float, float]:
    """Seconds and tokens an item of the first missing items; for at least half a second where there
    are enough."""
    from precompute.errors import ItemError

    encoder = encoders[0]
    prepared: list[Any] = []
    start = time.perf_counter()
    for source in sources:
        try:
            prepared.append(encoder.prepare(source))
        except ItemError:
            continue
    if not prepared:
        return 0.0, 0.0
    prepare_seconds = (time.perf_counter() - start) / len(prepared)
    size, done = encoder.batch_size, 0
    numerics.launch_together(encoders, prepared[:size])  # the first batch warms up
    start = time.perf_counter()
    for first in range(0, len(prepared), size):
        for fetch in numerics.launch_together(encoders, prepared[first : first + size]):
            fetch()
        done += len(prepared[first : first + size])
        if time.perf_counter() - start > _MINIMUM_SECONDS:
            break
    tokens = sum(map(encoder.length, prepared)) / len(prepared)
    return prepare_seconds + (time.perf_counter() - start) / done, tokens
