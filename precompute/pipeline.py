"""The main path of stage 1, from a dataset to commit records.

dataset -> Examples -> distinct images, questions, answer texts -> encoder -> batches -> shard
-> commit record
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

from data.example import Dataset, tree_command
from data.registry import open_dataset
from precompute.cores import usable_cores
from precompute.encoders.options import tokenizer_option
from precompute.errors import PrecomputeError
from precompute.folders import local_folder
from precompute.items import ImageHashing, SplitColumns, Wanted, collect_split
from precompute.passes import encode_steps, forward_passes, shards_together
from precompute.plan import Plan, make_plan
from precompute.results import TableResult, named, refuse_lost, result_of
from precompute.tables import EncoderSettings, OpenedTable, open_table
from precompute.thumbnails import write_thumbnails
from vqa_cache.cache import Cache, create_cache
from vqa_cache.dtypes import ShortName
from vqa_cache.errors import DamagedError
from vqa_cache.examples import write_split
from vqa_cache.keys import text_key, unpack_keys
from vqa_cache.memo import Memo
from vqa_cache.remedy import Filling, remember
from vqa_cache.spec import EncoderSpec, Modality, each_tap, parse_spec


@dataclass(frozen=True)
class Request:
    """What stage 1 is asked to do.

    Attributes:
        dataset: which adapter reads it.
        name: what the cache calls it; None: as the adapter.
        image, text, answer_text: encoder specs; answer texts go to the text tables.
        splits: None = all that the dataset has.
        limit: at most so many examples a split.
        settings: how tables are made; what an existing table recorded goes first.
        also_stored: further types that every table is stored in, each in a table of its own.
        workers: threads that hash and decode; by default one a core.
    """

    dataset: str
    root: str | None
    cache: str
    image: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    answer_text: tuple[str, ...] = ()
    splits: tuple[str, ...] | None = None
    limit: int | None = None
    settings: EncoderSettings = field(default_factory=EncoderSettings)
    also_stored: tuple[ShortName, ...] = ()
    workers: int = field(default_factory=usable_cores)
    on_error: Literal["raise", "skip"] = "raise"
    retry_failed: bool = False
    repair: bool = False
    rehash: bool = False
    engine: Literal["local", "ray"] = "local"
    name: str | None = None

    def filling(self) -> Filling:
        """What the cache remembers of it, to say how it was filled."""
        split = ("--splits", ",".join(self.splits)) if self.splits else ()
        limit = ("--limit", str(self.limit)) if self.limit else ()
        skip = ("--on-error", "skip") if self.on_error == "skip" else ()
        return Filling(
            dataset=self.dataset,
            name=self.name or self.dataset,
            root=os.path.abspath(self.root) if self.root else None,
            image=self.image,
            text=self.text,
            answer_text=self.answer_text,
            options=(*split, *limit, *skip),
        )


class Reporter(Protocol):
    """How stage 1 tells what it does."""

    def say(self, line: str) -> None:
        """One plain line."""

    def begin(self, table: str, total: int, done: int) -> None:
        """Encoding of a table begins, `done` of `total` items being there already."""

    def advance(self, items: int) -> None:
        """So many items more."""

    def end(self) -> None:
        """Encoding of the table has ended."""


@dataclass(frozen=True)
class Job:
    """One encoder with the items that its table has to hold."""

    spec: EncoderSpec
    modality: Modality
    sources: Mapping[bytes, str]
    settings: EncoderSettings


class OpenedJob(NamedTuple):
    """A job and its table."""

    job: Job
    opened: OpenedTable


def precompute(
    request: Request, reporter: Reporter, stopping: Callable[[], bool] = lambda: False
) -> list[TableResult]:
    """Encode what a dataset needs and the cache lacks.

    Raises:
        DatasetError, CacheError, PrecomputeError: one clear line each; what was committed stays.
        Stopped: `stopping` became true.
    """
    dataset = open_dataset(request.dataset, request.root)
    check_specs(request)
    cache = create_cache(request.cache)
    memo = Memo(cache.path / "memo.sqlite")
    try:
        wanted = commit_splits(request, cache, dataset, memo, reporter)
        todo = open_jobs(request, cache, memo, jobs(request, wanted), reporter)
        remember(cache.path, request.filling())  # a command that got here can be typed again
        results: dict[int, TableResult] = {}
        for together in forward_passes([opened for _, opened in todo]):
            chosen = [todo[place] for place in together]
            results |= zip(together, fill_tables(request, chosen, reporter, stopping), strict=True)
        refuse_lost([opened.table for _, opened in todo])
        return [results[place] for place in range(len(todo))]
    finally:
        memo.close()


def check_specs(request: Request) -> None:
    """Raise SpecError or EncoderError for what no encoder can be, before any image is read."""
    for spec in map(parse_spec, specs_of((*request.image, *request.text, *request.answer_text))):
        local_folder(spec)
        if "tokenizer" in spec.options:
            local_folder(tokenizer_option(spec))


def commit_splits(
    request: Request, cache: Cache, dataset: Dataset, memo: Memo, reporter: Reporter
) -> Wanted:
    """Read and commit the examples of every split; the distinct items that they need."""
    wanted = Wanted()
    for split in collect_splits(request, dataset, memo, wanted):
        commit_split(cache, dataset, split, request, wanted, reporter)
    return wanted


def collect_splits(
    request: Request, dataset: Dataset, memo: Memo, wanted: Wanted
) -> Iterator[SplitColumns]:
    """Read every split that was asked for; fills `wanted` on the way."""
    known = dataset.splits()
    splits = request.splits or tuple(known)
    if not splits:
        raise PrecomputeError(
            f"{dataset.name}: no split under {dataset.root}; files expected: "
            f"{tree_command(dataset)}"
        )
    for name in splits:
        if name not in known:
            raise PrecomputeError(
                f"{dataset.name}: no split {name!r} under {dataset.root}; "
                f"found: {', '.join(known) or 'none'}; files expected: {tree_command(dataset)}"
            )
    hashing = ImageHashing(memo, workers=request.workers, rehash=request.rehash)
    for name in splits:
        yield collect_split(
            dataset,
            name,
            limit=request.limit,
            skip_errors=request.on_error == "skip",
            hashing=hashing,
            wanted=wanted,
        )


def commit_split(
    cache: Cache,
    dataset: Dataset,
    split: SplitColumns,
    request: Request,
    wanted: Wanted,
    reporter: Reporter,
) -> None:
    """Write a split's columns and thumbnails, unless they are there already. Raises PrecomputeError
    where the cache has other data under this name."""
    name = f"{request.name or dataset.name}/{split.name}"
    refuse_replacing(cache, name, split, dataset)
    write_split(
        cache.path / "examples" / name,
        split.columns,
        examples=split.examples,
        annotated=split.annotated,
        limit=request.limit,
        skipped=split.skipped,
    )
    keys = split.columns["image_keys"]
    write_thumbnails(cache, name, keys, wanted.images, workers=request.workers)
    extra = "" if split.annotated else ", unlabelled"
    if split.empty_answers:
        extra += f", {split.empty_answers:,} empty answers"
    if split.skipped:
        extra += f", {len(split.skipped):,} left out ({split.skipped[0].error}, ...)"
    reporter.say(
        f"{name}: {split.examples:,} examples, "
        f"{len(split.columns['image_keys']):,} images, "
        f"{len(split.columns['question_keys']):,} distinct questions{extra}"
    )


def refuse_replacing(cache: Cache, name: str, split: SplitColumns, dataset: Dataset) -> None:
    """Raise PrecomputeError where the cache's split of this name has no image or no question in
    common with the new one: not the same data grown or mended, but other data."""
    if name not in cache.splits:
        return
    try:
        there = cache.split(name)
    except DamagedError:  # is written again
        return
    pairs = {"images": there.image_keys, "questions": there.question_keys}
    for what, keys in pairs.items():
        new = set(unpack_keys(split.columns[f"{what[:-1]}_keys"]))
        if len(keys) and new and new.isdisjoint(unpack_keys(keys)):
            raise PrecomputeError(
                f"{cache.path}: {name} has {len(keys):,} {what}, none of them among the "
                f"{len(new):,} of {dataset.root}; give these data a name of their own with --name, "
                f"or, to replace, delete {cache.path / 'examples' / name}"
            )


def jobs(request: Request, wanted: Wanted) -> list[Job]:
    """One job an encoder; questions come before answer texts where both use one."""
    texts: dict[str, dict[bytes, str]] = {}
    for spec in specs_of(request.text):
        texts.setdefault(spec, {}).update(wanted.questions)
    for spec in specs_of(request.answer_text):
        for key, text in {**wanted.answers, text_key("other"): "other"}.items():
            texts.setdefault(spec, {}).setdefault(key, text)
    every: list[tuple[str, Modality, Mapping[bytes, str]]] = [
        *((spec, "image", wanted.images) for spec in specs_of(request.image)),
        *((spec, "text", items) for spec, items in texts.items()),
    ]
    stored = dict.fromkeys((request.settings.dtype, *request.also_stored))
    return [
        Job(parse_spec(spec), modality, items, replace(request.settings, dtype=dtype))
        for spec, modality, items in every
        for dtype in stored
    ]


def specs_of(encoders: Sequence[str]) -> list[str]:
    """Every spec once, with a single tap each."""
    return list(dict.fromkeys(spec for text in encoders for spec in each_tap(text)))


def open_jobs(
    request: Request, cache: Cache, memo: Memo, todo: list[Job], reporter: Reporter
) -> list[OpenedJob]:
    """Find or begin every table before the first is filled: a mistake in the last is told now, not
    after hours of the first."""
    opened: list[OpenedTable] = []
    for job in todo:
        opened.append(
            open_table(
                cache, memo, job.spec, job.modality, job.settings,
                remembered=not request.rehash, beside=opened,
            )
        )  # fmt: skip
        for note in opened[-1].notes:
            reporter.say(note)
    return [OpenedJob(job, table) for job, table in zip(todo, opened, strict=True)]


def fill_tables(
    request: Request,
    together: Sequence[OpenedJob],
    reporter: Reporter,
    stopping: Callable[[], bool],
) -> list[TableResult]:
    """Bring the tables of one forward pass to hold every wanted item, shard by shard."""
    plans = []
    for job, opened in together:
        opened.table.restore_records()
        plans.append(make_plan(opened.table, job.sources, retry_failed=request.retry_failed))
    repaired = [0] * len(plans)
    if request.repair or any(plan.missing for plan in plans):
        repaired = encode_plans(request, together, plans, reporter, stopping)
    results = []
    for (job, opened), plan, mended in zip(together, plans, repaired, strict=True):
        opened.table.seal()
        results.append(result_of(opened.table, job.sources, plan, mended))
        for line in results[-1].told(opened.table):
            reporter.say(line)
        opened.encoder = None  # of many encoders one stays in memory
    return results


def encode_plans(
    request: Request,
    together: Sequence[OpenedJob],
    plans: Sequence[Plan],
    reporter: Reporter,
    stopping: Callable[[], bool],
) -> list[int]:
    """Repair damaged shards if asked to, then encode and commit the planned ones in order; the
    number of repaired ones of each table."""
    # here: a run that has nothing to do needs no torch
    from precompute.encode import Worker, preprocessing_threads
    from precompute.repair import damaged_shards, repair_shards
    from vqa_cache.system.device import device_name

    tables = [opened for _, opened in together]
    damaged = [damaged_shards(table) if request.repair else [] for table in tables]
    steps = shards_together(plans)
    if not (steps or any(damaged)):
        return [0] * len(tables)
    with preprocessing_threads(request.workers) as pool:
        worker = Worker(
            sources={key: source for job, _ in together for key, source in job.sources.items()},
            pool=pool,
            workers=request.workers,
            skip_errors=request.on_error == "skip",
            advance=reporter.advance,
            stopping=stopping,
            say=reporter.say,
        )
        for table, own in zip(tables, damaged, strict=True):
            repair_shards(table, worker, own)
        if steps:
            names = named([table.table.name for table in tables])
            items = sum(len(step.keys) for step in steps)
            done = min(plan.present for plan in plans)
            reporter.begin(names, done + items, done)
            try:
                if request.engine == "ray":
                    from precompute.engine_ray import encode_shards

                    encode_shards(tables, steps, worker)
                else:
                    encode_steps(tables, steps, worker, name=names, present=done)
            finally:
                reporter.end()
            if request.engine == "local":
                used = next(table.encoder for table in tables if table.encoder is not None)
                told = worker.bottleneck.told(items, device_name(used.device))
                reporter.say(f"{names}: {told}")
    return [len(own) for own in damaged]
