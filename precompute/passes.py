"""Several tables from one pass over the files: which may share it, and in which steps it goes.

Tables whose specs differ in tap, raster and stored type alone are filled from one decoding, one
preprocessing and one forward pass, shard by shard. What one of them has already is left out, so an
interrupted pass goes on as tables alone would. Runs that fill a table at the same time claim each
shard before they begin it, so that each takes what no other has.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from precompute.plan import Plan, PlannedShard
from precompute.tables import OpenedTable
from vqa_cache.shard import is_committed
from vqa_cache.system.durable import claimed, make_folder
from vqa_cache.system.signals import Stopped

if TYPE_CHECKING:
    from precompute.encode import Tapped, Worker
    from precompute.encoders.base import Encoder

Outcome = Literal["encoded", "committed", "claimed"]
SECONDS_BETWEEN_LOOKS = 0.2  # at a shard that another run is encoding


@dataclass(frozen=True)
class Step:
    """Shards of the same keys.

    Attributes:
        shards: the place of a table in its pass -> its shard.
    """

    keys: tuple[bytes, ...]
    shards: dict[int, PlannedShard] = field(default_factory=dict)


def forward_passes(tables: Sequence[OpenedTable]) -> list[list[int]]:
    """Places of tables that one pass may fill: the same model and preprocessing, and records that
    name the same way of computing. Of a table that was named twice, each in a pass of its own."""
    groups: dict[str, list[int]] = {}
    seen: Counter[str] = Counter()
    for place, opened in enumerate(tables):
        record = opened.table.record
        computing = (record.precision, record.batch_plan, record.threads)
        named = f"{opened.modality} {opened.spec.without_tap()} {computing}"
        groups.setdefault(f"{seen[opened.table.id]} {named}", []).append(place)
        seen[opened.table.id] += 1
    return list(groups.values())


def shards_together(plans: Sequence[Plan]) -> list[Step]:
    """The planned shards of some tables in order, those of the same keys in one step."""
    steps: dict[tuple[bytes, ...], Step] = {}
    for place, plan in enumerate(plans):
        for planned in plan.shards:
            steps.setdefault(planned.keys, Step(planned.keys)).shards[place] = planned
    return list(steps.values())


def encode_steps(
    tables: Sequence[OpenedTable], steps: Sequence[Step], worker: Worker, *, name: str, present: int
) -> None:
    """Encode and commit in this process. Raises as `Worker.write_shards` does; Stopped tells the
    rows that are kept and those that are lost.

    Args:
        name: of the tables, for that line.
        present: rows that are there already.
    """
    tapped = ready(tables, {place for step in steps for place in step.shards})
    kept, total = present, present + sum(len(step.keys) for step in steps)
    waiting, in_vain = deque(steps), 0
    while waiting:
        step = waiting.popleft()
        try:
            if worker.stopping():
                raise Stopped("stopped by a signal")
            outcome = commit_step(tapped, step, worker)
        except Stopped as stopped:
            raise Stopped(
                f"{stopped}: {name}: {kept:,} of {total:,} rows are kept, {worker.lost:,} of a "
                f"shard of {len(step.keys):,} are lost; the same command goes on"
            ) from None
        if outcome != "claimed":
            kept, in_vain = kept + len(step.keys), 0
        if outcome != "encoded":
            worker.met_another_run(name)
        if outcome == "claimed":
            waiting.append(step)
            in_vain += 1
            if in_vain >= len(waiting):  # the others' shards are all that is left
                time.sleep(SECONDS_BETWEEN_LOOKS)


def ready(tables: Sequence[OpenedTable], places: Iterable[int]) -> dict[int, Tapped]:
    """Tables with their encoders, which share a model where they can."""
    found: dict[int, Tapped] = {}
    loaded: list[Encoder] = [one.encoder for one in tables if one.encoder is not None]
    for place in sorted(places):
        found[place] = tables[place].ready(loaded)
        loaded.append(found[place].encoder)
    return found


def commit_step(tapped: dict[int, Tapped], step: Step, worker: Worker) -> Outcome:
    """Write and commit the shards of a step, apart from one in which every key failed that had
    failed before.

    Returns:
        "encoded"; "committed" where another run had done so since they were planned; "claimed"
        where another run is about to: nothing was done.
    """
    with ExitStack() as claims:
        for place, planned in step.shards.items():
            folder = tapped[place].table.folder / "shards"
            make_folder(folder, folder.parent)
            if not claims.enter_context(claimed(folder / planned.name, planned.name)):
                return "claimed"
        left = [
            place
            for place, planned in step.shards.items()
            if not is_committed(tapped[place].table, planned.name)
        ]
        if not left:
            worker.advance(len(step.keys))
            return "committed"
        _encode_and_commit(tapped, replace(step, shards={p: step.shards[p] for p in left}), worker)
        return "encoded"


def _encode_and_commit(tapped: dict[int, Tapped], step: Step, worker: Worker) -> None:
    by_model: dict[int, list[int]] = {}
    for place in step.shards:
        by_model.setdefault(id(tapped[place].encoder.module), []).append(place)
    for places in by_model.values():
        shards = [step.shards[place] for place in places]
        writers = worker.write_shards([tapped[place] for place in places], shards)
        with worker.bottleneck.on("writing"):
            for writer, planned in zip(writers, shards, strict=True):
                if planned.failed_before and len(writer.failed) == len(planned.keys):
                    writer.abandon()
                else:
                    writer.commit()
