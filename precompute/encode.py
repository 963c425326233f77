"""The worker: encode the planned keys of one shard into its writer.

Nothing here knows who runs it: the local engine does, and any other may.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import torch

from data.images import is_of_the_file
from precompute.bottleneck import Bottleneck
from precompute.copies import Fetch
from precompute.encoders.base import Encoder
from precompute.errors import ItemError, ShortageError
from precompute.numerics import Numerics, check_stored, raw_rows, to_stored
from precompute.plan import PlannedShard
from vqa_cache.keys import image_key
from vqa_cache.shard import ShardWriter
from vqa_cache.system.lines import one_line
from vqa_cache.system.signals import Stopped
from vqa_cache.table import Table


class Launched(NamedTuple):
    """A batch that the encoder works on, and what waits for its rows."""

    batch: list[Prepared]
    fetch: Fetch


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


@dataclass
class Worker:
    """What encoding a table takes.

    Attributes:
        lookahead: items that are preprocessed ahead of the encoder.
        sources: key -> image path or text.
        skip_errors: record an item that fails instead of raising.
        advance: called with the number of items done.
        stopping: asked between batches; true ends the shard where little of it is left, and
            abandons it otherwise.
        say: tells a line.
        lost: rows of the shard that was abandoned.
    """

    table: Table
    sources: Mapping[bytes, str]
    pool: ThreadPoolExecutor
    lookahead: int
    skip_errors: bool
    advance: Callable[[int], None]
    stopping: Callable[[], bool]
    say: Callable[[str], None] = lambda _line: None
    lost: int = 0
    bottleneck: Bottleneck = field(default_factory=Bottleneck)
    _running: tuple[Encoder, Numerics] | None = None
    _cores_free: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self._cores_free.set()

    def use(self, encoder: Encoder, numerics: Numerics) -> None:
        """Set what encodes, before the first shard."""
        self._running = encoder, numerics

    @property
    def encoder(self) -> Encoder:
        assert self._running is not None
        return self._running[0]

    def commit_shard(self, planned: PlannedShard) -> None:
        """Encode a shard and commit it, unless every key failed that had failed before. Raises what
        `write_shard` does."""
        writer = self.write_shard(planned)
        if planned.failed_before and len(writer.failed) == len(planned.keys):
            writer.abandon()
            return
        with self.bottleneck.on("writing"):
            writer.commit()

    def write_shard(self, planned: PlannedShard, absent: Mapping[int, str] = {}) -> ShardWriter:
        """A writer with every row of the shard, not committed yet.

        Args:
            absent: planned positions that have no source any more -> why they failed.

        Raises:
            ItemError: an item cannot be encoded, without `skip_errors`.
            Stopped: `stopping` became true, and the rest of the shard would take long; nothing of
                it is kept.
        """
        sources = [self.sources.get(key, "") for key in planned.keys]
        texts = sources if self.encoder.modality == "text" else None
        writer = ShardWriter(
            self.table.folder, self.table.record, list(planned.keys), texts, planned.name
        )
        writer.failed.update(absent)
        with writer.abandoned_on_error():
            before: Launched | None = None  # a GPU works on a batch while the one before is written
            begun, done, ending = time.monotonic(), 0, False
            for batch in self._batches(self._prepare(sources, writer)):
                if not ending and self.stopping():
                    self._end_or_abandon(done, len(sources), time.monotonic() - begun)
                    ending = True
                done += len(batch)
                launched = self._launch(batch)
                if before is not None:
                    self._write(before, sources, writer)
                before = launched
            if before is not None:
                self._write(before, sources, writer)
        return writer

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

    def _prepare(self, sources: Sequence[str], writer: ShardWriter) -> Iterator[Prepared]:
        """Preprocess in worker threads, a bounded number ahead; yield in order.

        On a CPU threads begin an item between two batches: the encoder takes all cores, and its own
        threads would wait for the one that shares its core (ResNet-50 on two cores: 12.6 images/s
        against 14.0).
        """
        encoder, together = self.encoder, self.encoder.prepared_together
        todo = [position for position in range(len(sources)) if position not in writer.failed]
        upcoming = (todo[start : start + together] for start in range(0, len(todo), together))
        ahead: deque[tuple[list[int], Future[list[Any]]]] = deque()

        def preprocess(positions: list[int]) -> list[Any]:
            self._cores_free.wait()
            own = [sources[position] for position in positions]
            items = encoder.prepare_many(own)
            if encoder.modality == "text":
                return items
            keys = [writer.planned[position] for position in positions]
            return [_unchanged(*one) for one in zip(items, own, keys, strict=True)]

        def submit(count: int) -> None:
            for positions in islice(upcoming, count):
                ahead.append((positions, self.pool.submit(preprocess, positions)))

        submit(1 + self.lookahead // together)
        while ahead:
            positions, future = ahead.popleft()
            with self.bottleneck.on("preprocessing"):
                items = future.result()
            submit(1)
            for position, item in zip(positions, items, strict=True):
                if isinstance(item, ItemError):
                    self._fail(writer, position, sources[position], str(item))
                else:
                    writer.truncated += encoder.truncated(sources[position], item)
                    yield Prepared(position, item, encoder.length(item))

    def _batches(self, prepared: Iterator[Prepared]) -> Iterator[list[Prepared]]:
        plan = self.table.record.batch_plan
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

    def _launch(self, batch: list[Prepared]) -> Launched:
        assert self._running is not None
        encoder, numerics = self._running
        if encoder.device.type == "cpu":
            self._cores_free.clear()
        try:
            with self.bottleneck.on("encoding"):
                return Launched(batch, numerics.launch(encoder, [one.item for one in batch]))
        finally:
            self._cores_free.set()

    def _write(self, launched: Launched, sources: Sequence[str], writer: ShardWriter) -> None:
        encoder, batch = self.encoder, launched.batch
        with self.bottleneck.on("encoding"):
            rows = launched.fetch()
            stored = to_stored(rows, self.table.dtype)
        positions = [one.position for one in batch]
        lengths = [one.length for one in batch] if encoder.ragged else None
        of_row = np.repeat(positions, lengths if lengths is not None else 1)
        for index, error in check_stored(rows, stored).items():
            position = int(of_row[index])
            self._fail(writer, position, sources[position], error)
        with self.bottleneck.on("writing"):
            writer.write(positions, raw_rows(stored), lengths)
        self.advance(len(batch))

    def _fail(self, writer: ShardWriter, position: int, source: str, error: str) -> None:
        # the record keeps the reason without the path, which belongs to one machine
        if not self.skip_errors:
            raise ItemError(
                f"{self.encoder.modality} {one_line(source)}: {error}; to leave such items out: "
                "--on-error skip"
            )
        writer.failed[position] = error


def _unchanged(item: Any, path: str, key: bytes) -> Any:
    """What was decoded, or an ItemError where the file is not the one whose hash is its key: hours
    may lie between the two."""
    if isinstance(item, ItemError):
        return item
    try:
        same = image_key(path) == key
    except OSError as error:
        if not is_of_the_file(error):
            raise ShortageError.of(f"image {path}", error) from error
        same = False
    return item if same else ItemError("is not the file that was hashed; run again with --rehash")
