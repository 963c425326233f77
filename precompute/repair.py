"""Encoding damaged shards again, byte for byte."""

from __future__ import annotations

from precompute.encode import Worker
from precompute.errors import PrecomputeError
from precompute.plan import PlannedShard
from precompute.tables import OpenedTable
from vqa_cache.arrays import check_files
from vqa_cache.shard import planned_keys


def repair_shards(opened: OpenedTable, worker: Worker) -> int:
    """Replace every shard whose files differ from its record; the number of them.

    Raises:
        PrecomputeError: a damaged shard holds items that this dataset does not have.
        DamagedError: encoded again, a shard differs from its record.
    """
    damaged = [
        record
        for record in opened.table.shards
        if any(check_files(opened.table.folder, record, content=True))
    ]
    if damaged:
        opened.prepare(worker)
    for record in damaged:
        keys = planned_keys(record)
        absent = [key for key in keys if key not in worker.sources]
        if absent:
            raise PrecomputeError(
                f"table {opened.table.name}: shard {record['shard']} is damaged and "
                f"{len(absent):,} of its {len(keys):,} items are not among those asked for; "
                "repair with the dataset and splits that filled it"
            )
        failures = {failure["position"]: failure["error"] for failure in record["failed"]}
        planned = PlannedShard(record["shard"], tuple(keys))
        worker.write_shard(planned, failures).repair(record)
    return len(damaged)
