"""`--dry-run`: rows, bytes and time, with nothing written."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from data.registry import open_dataset
from precompute.items import Wanted
from precompute.pipeline import Job, Request, collect_splits, jobs
from precompute.plan import make_plan
from vqa_cache.cache import Cache, open_cache
from vqa_cache.identity import find_by_id
from vqa_cache.memo import Memo
from vqa_cache.table import Table

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
    return [_estimate_job(request, cache, job) for job in jobs(request, wanted)]


def _estimate_job(request: Request, cache: Cache | None, job: Job) -> Estimate:
    from precompute.encoders import load_encoder
    from precompute.independence import check_independence
    from precompute.numerics import Numerics
    from vqa_cache.system.device import choose_device

    encoder = load_encoder(job.spec, job.modality)
    identity = encoder.identity(request.settings.stored)
    encoder.to(choose_device())
    table = find_by_id(cache, identity.id) if cache is not None else None
    missing = list(job.sources)
    if table is None:
        check_independence(encoder)
    else:
        plan = make_plan(table, job.sources, retry_failed=request.retry_failed)
        missing = [key for shard in plan.shards for key in shard.keys]
    item = 4 if identity.dtype == "float32" else 2
    row_bytes = int(np.prod(encoder.row_shape)) * item
    sources = [job.sources[key] for key in missing[:64]]
    numerics = Numerics(_precision(request, encoder, table)) if sources else Numerics("fp32")
    seconds, rows = _measure(encoder, numerics, sources)
    return Estimate(
        identity.table_name(encoder.label),
        len(job.sources),
        len(missing),
        round(len(missing) * rows * row_bytes),
        round(len(missing) * seconds, 1),
    )


def _precision(request: Request, encoder: Any, table: Table | None) -> Any:
    """What a run would compute in: as the table recorded, as asked for, or as a probe chooses."""
    from precompute.computing import choose_computing

    if table is not None:
        return table.record.precision
    return choose_computing(encoder, request.settings).precision


def _measure(encoder: Any, numerics: Any, sources: list[str]) -> tuple[float, float]:
    """Seconds and, of a ragged table, tokens an item, of the first missing items; for at least half
    a second where there are enough."""
    from precompute.errors import ItemError

    prepared = []
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
    numerics.encode(encoder, prepared[:size])  # the first batch warms up
    start = time.perf_counter()
    for first in range(0, len(prepared), size):
        numerics.encode(encoder, prepared[first : first + size])
        done += len(prepared[first : first + size])
        if time.perf_counter() - start > _MINIMUM_SECONDS:
            break
    tokens = sum(map(encoder.length, prepared)) / len(prepared) if encoder.ragged else 1.0
    return prepare_seconds + (time.perf_counter() - start) / done, tokens
