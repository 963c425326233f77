"""Encoding damaged shards again, byte for byte."""

from __future__ import annotations

from dataclasses import replace

from precompute.encode import Worker
from precompute.errors import PrecomputeError
from precompute.plan import PlannedShard
from precompute.tables import OpenedTable
from vqa_cache.arrays import check_files
from vqa_cache.keys import unpack_keys
from vqa_cache.records.shard import ShardRecord


def damaged_shards(opened: OpenedTable) -> list[ShardRecord]:
    """Commit records whose files differ from them in any byte."""
    folder = opened.table.folder
    return [
        record for record in opened.table.shards if any(check_files(folder, record, content=True))
    ]


def repair_shards(opened: OpenedTable, worker: Worker, damaged: list[ShardRecord]) -> None:
    """Replace damaged shards by encoding them as they were, failures included.

    Raises:
        PrecomputeError: a damaged shard holds items that this dataset does not have.
        DamagedError: encoded again, a shard differs from its record.
    """
    if not damaged:
        return
    worker, tapped = replace(worker, skip_errors=True, advance=lambda _items: None), opened.ready()
    for record in damaged:
        keys = unpack_keys(record.planned_keys)
        failures = {failure.position: failure.error for failure in record.failed}
        absent = {
            position: failures.get(position)
            for position, key in enumerate(keys)
            if key not in worker.sources
        }
        lost = [position for position, error in absent.items() if error is None]
        if lost:
            raise PrecomputeError(
                f"table {opened.table.name}: shard {record.shard} is damaged and "
                f"{len(lost):,} of its {len(keys):,} items are not among those asked for; "
                "repair with the dataset and splits that filled it"
            )
        planned = PlannedShard(record.shard, tuple(keys))
        known = {position: error for position, error in absent.items() if error is not None}
        [writer] = worker.write_shards([tapped], [planned], known)
        writer.repair(record)
