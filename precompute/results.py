"""What was done for each table, and how it is told."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from precompute.errors import PrecomputeError
from precompute.plan import Plan, make_plan
from vqa_cache.arrays import check_files
from vqa_cache.commit import cache_root
from vqa_cache.remedy import cache_option, remedy
from vqa_cache.system.lines import one_line
from vqa_cache.table import Table

_NAMED = 5  # failures


@dataclass(frozen=True)
class TableResult:
    """What was done for one table.

    Attributes:
        encoded: items that were there at the end and not at the beginning; several runs at once
            share them.
        failures: some of the items that have no row, and why, as their source is called.
    """

    table: str
    wanted: int
    present: int
    encoded: int
    failed: int
    repaired: int
    truncated: int
    failures: tuple[str, ...] = ()

    def told(self, table: Table) -> Iterator[str]:
        """Lines for people."""
        failed = f", {self.failed:,} failed" if self.failed else ""
        repaired = f", {self.repaired:,} shards repaired" if self.repaired else ""
        yield (
            f"{self.table}: {self.encoded:,} encoded, {self.present:,} of {self.wanted:,} "
            f"were there{failed}{repaired}"
        )
        yield from (f"  {failure}" for failure in self.failures)
        if self.failed > len(self.failures):
            words = ["vqa-cache", "info", table.name, *cache_option(cache_root(table.folder))]
            more = self.failed - len(self.failures)
            yield f"  and {more:,} more; all of them: {shlex.join(words)}"
        if self.truncated:
            made = table.record.identity.preprocessing
            longest = made.get("max_length", made.get("context_length"))
            yield (
                f"{self.table}: {self.truncated:,} texts are longer than the {longest} tokens that "
                f"the encoder takes and were cut at the {made.get('truncation', 'right')}; "
                "docs/encoders.md tells the options max_length and truncation_side"
            )


def result_of(table: Table, wanted: Mapping[bytes, str], plan: Plan, repaired: int) -> TableResult:
    """What became of a plan for wanted keys, key -> image path or text."""
    failed = ((key, why) for key, why in table.failed.items() if key in wanted)
    final = make_plan(table, wanted, retry_failed=False)
    return TableResult(
        table.name,
        wanted=len(wanted),
        present=plan.present,
        encoded=final.present - plan.present,
        failed=final.failed,
        repaired=repaired,
        truncated=sum(record.truncated for record in table.shards),
        failures=tuple(f"{one_line(wanted[key])}: {why}" for key, why in islice(failed, _NAMED)),
    )


def refuse_lost(tables: Sequence[Table]) -> None:
    """Raise PrecomputeError, a line a table, where files of committed shards are gone or have
    another size: their rows are not there, whatever the records say."""
    lines = []
    for table in {table.folder: table for table in tables}.values():
        lost = {
            record.shard: (record.rows, problem)
            for record in table.shards
            for problem in check_files(table.folder, record, content=False)
        }
        if lost:
            rows = sum(count for count, _ in lost.values())
            first = next(iter(lost.values()))[1]
            lines.append(
                f"table {table.name}: {rows:,} of {len(table):,} rows are lost, in "
                f"{len(lost):,} of {len(table.shards):,} shards ({first}); "
                f"encode them again: {remedy(table.folder)}"
            )
    if lines:
        raise PrecomputeError("\n".join(lines))


def named(names: list[str]) -> str:
    """The tables of a forward pass in a few words."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more of its pass"
