"""The worker: encode the planned keys of a shard, at one tap of a model or several, into a writer
for each tap's table.

Nothing here knows who runs it: the local engine does, and any other may.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import torch

from data.images import is_of_the_file
from data.members import open_member
from precompute.bottleneck import Bottleneck
from precompute.copies import Fetch
from precompute.encoders.base import Encoder
from precompute.errors import ItemError, ShortageError
from precompute.numerics import Numerics, check_stored, raw_rows, to_stored
from precompute.plan import PlannedShard
from vqa_cache.keys import content_key
from vqa_cache.records.table import TableRecord
from vqa_cache.shard import ShardWriter
from vqa_cache.system.lines import one_line
from vqa_cache.system.signals import Stopped
from vqa_cache.table import Table


class Launched(NamedTuple):
    """A batch that the model works on, and what waits for each table's rows."""

    batch: list[Prepared]
    fetches: list[Fetch]


class Tapped(NamedTuple):
    """A table, and the encoder whose rows it holds."""

    table: Table
    encoder: Encoder


class Prepared(NamedTuple):
    """A preprocessed item with its planned position and its length in tokens."""

    position: int
    item: Any
    length: int


def preprocessing_threads(count: int) -> ThreadPoolExecutor:
    """Threads that preprocess, each on one core. Idle helpers of theirs would make OpenMP put the
    encoder's to sleep between two operations, instead of letting them wait a moment."""
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


# what a shard may still take after a signal; where SIGKILL follows, it does so after 30 s at least
SECONDS_TO_END = 20.0


class Writing(NamedTuple):
    """Shards of the same keys on their way, one for each table.

    Attributes:
        sources: the keys' image paths or texts, in order.
    """

    tapped: Sequence[Tapped]
    writers: list[ShardWriter]
    sources: list[str]

    @property
    def first(self) -> Encoder:
        """The encoder that stands for all of them: they preprocess and run as one."""
        return self.tapped[0].encoder

    @property
    def record(self) -> TableRecord:
        """The record of the first table; the others' say the same about computing."""
        return self.tapped[0].table.record


@dataclass
class Worker:
    """What encoding takes.

    Attributes:
        sources: key -> image path or text.
        workers: threads of `pool`, which preprocess.
        skip_errors: record an item that fails instead of raising.
        advance: called with the number of items done.
        stopping: asked between batches; true ends the shard where little of it is left, and
            abandons it otherwise.
        say: tells a line.
        lost: rows of the shard that was abandoned.
        others: whether another run was seen to fill the same tables.
    """

    sources: Mapping[bytes, str]
    pool: ThreadPoolExecutor
    workers: int
    skip_errors: bool
    advance: Callable[[int], None]
    stopping: Callable[[], bool]
    say: Callable[[str], None] = lambda _line: None
    lost: int = 0
    others: bool = False
    bottleneck: Bottleneck = field(default_factory=Bottleneck)
    _cores_free: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self._cores_free.set()

    def met_another_run(self, name: str) -> None:
        """Say once that tables of this name are filled by another run as well."""
        if not self.others:
            self.say(f"another run fills {name} too: each takes shards that no other has begun")
            self.others = True

    def write_shards(
        self,
        tapped: Sequence[Tapped],
        planned: Sequence[PlannedShard],
        absent: Mapping[int, str] = {},
    ) -> list[ShardWriter]:
        """A writer for each table with every row of its shard, not committed yet.

        Args:
            tapped: tables whose encoders share a model, and whose records a way of computing.
            planned: of each table a shard, all of the same keys.
            absent: planned positions that have no source any more -> why they failed.

        Raises:
            ItemError: an item cannot be encoded, without `skip_errors`.
            Stopped: `stopping` became true, and the rest of the shards would take long; nothing of
                them is kept.
        """
        keys = planned[0].keys
        sources = [self.sources.get(key, "") for key in keys]
        texts = sources if tapped[0].encoder.modality == "text" else None
        with ExitStack() as kept:
            writers = []
            for one, shard in zip(tapped, planned, strict=True):
                table = one.table
                writer = ShardWriter(table.folder, table.record, list(keys), texts, shard.name)
                kept.enter_context(writer.abandoned_on_error())
                writer.failed.update(absent)
                writers.append(writer)
            writing = Writing(tapped, writers, sources)
            before: Launched | None = None  # a GPU works on a batch while the one before is written
            begun, done, ending = time.monotonic(), 0, False
            for batch in self._batches(self._prepare(writing), writing):
                if not ending and self.stopping():
                    self._end_or_abandon(done, len(sources), time.monotonic() - begun)
                    ending = True
                done += len(batch)
                launched = self._launch(batch, writing)
                if before is not None:
                    self._write(before, writing)
                before = launched
            if before is not None:
                self._write(before, writing)
        return writers

    def _end_or_abandon(self, done: int, total: int, seconds: float) -> None:
        """Raises Stopped where the rest of a shard would take longer than a stop may."""
        left = seconds / done * (total - done) if done else float("inf")
        if left > SECONDS_TO_END:
            self.lost = done
            raise Stopped("stopped by a signal")
        self.say(
            f"stopping: {total - done:,} of {total:,} rows are left of the shard under way, about "
            f"{left:.0f} s; a second signal stops at once and loses it"
        )

    def _prepare(self, writing: Writing) -> Iterator[Prepared]:
        """Preprocess in worker threads, a bounded number ahead; yield in order.

        On a CPU threads begin an item between two batches: the encoder takes all cores, and its own
        threads would wait for the one that shares its core (ResNet-50 on two cores: 12.6 images/s
        against 14.0).
        """
        encoder, sources, planned = writing.first, writing.sources, writing.writers[0].planned
        together, failed = encoder.prepared_together, writing.writers[0].failed
        todo = [position for position in range(len(sources)) if position not in failed]
        upcoming = (todo[start : start + together] for start in range(0, len(todo), together))
        ahead: deque[tuple[list[int], Future[list[Any]]]] = deque()

        def preprocess(positions: list[int]) -> list[Any]:
            self._cores_free.wait()
            own = [sources[position] for position in positions]
            items = encoder.prepare_many(own)
            if encoder.modality == "text":
                return items
            keys = [planned[position] for position in positions]
            return [_unchanged(*one) for one in zip(items, own, keys, strict=True)]

        def submit(count: int) -> None:
            for positions in islice(upcoming, count):
                ahead.append((positions, self.pool.submit(preprocess, positions)))

        ahead_of_batch = 2 * self.workers + writing.record.batch_plan.size
        submit(1 + ahead_of_batch // together)
        while ahead:
            positions, future = ahead.popleft()
            with self.bottleneck.on("preprocessing"):
                items = future.result()
            submit(1)
            for position, item in zip(positions, items, strict=True):
                if isinstance(item, ItemError):
                    for writer in writing.writers:
                        self._fail(writing, writer, position, str(item))
                else:
                    cut = encoder.truncated(sources[position], item)
                    for writer in writing.writers:
                        writer.truncated += cut
                    yield Prepared(position, item, encoder.length(item))

    def _batches(self, prepared: Iterator[Prepared], writing: Writing) -> Iterator[list[Prepared]]:
        plan = writing.record.batch_plan
        if plan.kind != "in-order":  # the shard's texts all at once: token ids are small
            prepared = iter(sorted(prepared, key=lambda one: (one.length, one.position)))
        batch: list[Prepared] = []
        for one in prepared:
            # sorted, so that this would be the longest one, to which the others are padded
            each = one.length if plan.kind == "by-tokens" else 1
            if batch and (len(batch) + 1) * each > plan.size:
                yield batch
                batch = []
            batch.append(one)
        if batch:
            yield batch

    def _launch(self, batch: list[Prepared], writing: Writing) -> Launched:
        encoders = [one.encoder for one in writing.tapped]
        numerics = Numerics(writing.record.computed_in)
        if writing.first.device.type == "cpu":
            self._cores_free.clear()
        try:
            with self.bottleneck.on("encoding"):
                items = [one.item for one in batch]
                return Launched(batch, numerics.launch_together(encoders, items))
        finally:
            self._cores_free.set()

    def _write(self, launched: Launched, writing: Writing) -> None:
        for (table, encoder), writer, fetch in zip(
            writing.tapped, writing.writers, launched.fetches, strict=True
        ):
            with self.bottleneck.on("encoding"):
                rows = fetch()
                stored = to_stored(rows, table.dtype)
            positions = [one.position for one in launched.batch]
            lengths = [one.length for one in launched.batch] if encoder.ragged else None
            of_row = np.repeat(positions, lengths if lengths is not None else 1)
            for index, error in check_stored(rows, stored).items():
                self._fail(writing, writer, int(of_row[index]), error)
            with self.bottleneck.on("writing"):
                writer.write(positions, raw_rows(stored), lengths)
        self.advance(len(launched.batch))

    def _fail(self, writing: Writing, writer: ShardWriter, position: int, error: str) -> None:
        # the record keeps the reason without the path, which belongs to one machine
        if not self.skip_errors:
            source = one_line(writing.sources[position])
            raise ItemError(
                f"{writing.first.modality} {source}: {error}; to leave such items out: "
                "--on-error skip"
            )
        writer.failed[position] = error


def _unchanged(item: Any, path: str, key: bytes) -> Any:
    """What was decoded, or an ItemError where the file is not the one whose hash is its key: hours
    may lie between the two."""
    if isinstance(item, ItemError):
        return item
    try:
        with open_member(path) as picture:
            same = content_key(picture) == key
    except OSError as error:
        if not is_of_the_file(error):
            raise ShortageError.of(f"image {path}", error) from error
        same = False
    return item if same else ItemError("is not the file that was hashed; run again with --rehash")
