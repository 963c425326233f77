"""Which rows are missing, and in which shards they will stand (FORMAT.md section 4.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vqa_cache.keys import unpack_keys
from vqa_cache.shard import shard_name
from vqa_cache.table import Table


@dataclass(frozen=True)
class PlannedShard:
    """Keys of one shard to be, in order, and its name.

    Attributes:
        failed_before: every key's failure is recorded already, so that a shard without a row would
            tell nothing new.
    """

    name: str
    keys: tuple[bytes, ...]
    failed_before: bool = False


@dataclass(frozen=True)
class Plan:
    """What a table has and lacks of the wanted keys."""

    present: int
    failed: int
    shards: tuple[PlannedShard, ...]

    @property
    def missing(self) -> int:
        return sum(len(shard.keys) for shard in self.shards)


def make_plan(table: Table, wanted: Iterable[bytes], *, retry_failed: bool) -> Plan:
    """Cut the wanted keys that a table lacks, in order of first appearance, into shards.

    Failed keys are left out, unless `retry_failed`; then they are planned as well, apart from
    withdrawn ones, which only deleting the record of it brings back.
    """
    wanted = list(wanted)
    have = set(unpack_keys(table.keys))
    failed = set(table.failed)
    skipped = set(table.withdrawn) if retry_failed else failed
    missing = [key for key in wanted if key not in have and key not in skipped]
    taken = {record.shard for record in table.shards}
    size = table.record.rows_per_shard
    shards = []
    for start in range(0, len(missing), size):
        keys = missing[start : start + size]
        retry = 0
        while (name := shard_name(table.id, keys, retry)) in taken:
            retry += 1
        shards.append(PlannedShard(name, tuple(keys), failed.issuperset(keys)))
    present = sum(key in have for key in wanted)
    return Plan(present, sum(key in skipped for key in wanted), tuple(shards))
