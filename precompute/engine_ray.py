"""`--engine ray`: the same worker on a Ray cluster, each process committing its own shards.

A local cluster is started, or the one that RAY_ADDRESS names is used; its machines have to see the
cache, the images and this package at the same paths. Only commit records return to the driver. Ray
runs a shard again whose process was lost, so a lost process costs its unfinished shard.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from precompute.encode import Tapped, Worker, preprocessing_threads
from precompute.errors import PrecomputeError
from precompute.passes import SECONDS_BETWEEN_LOOKS, Outcome, Step, commit_step, ready
from precompute.results import named
from precompute.tables import OpenedTable
from vqa_cache.spec import Modality, parse_spec
from vqa_cache.system.durable import remove_stale_temporaries
from vqa_cache.system.ray_cluster import connect, fetch
from vqa_cache.system.signals import Stopped
from vqa_cache.table import Table

_RETRIES = 3  # of a shard whose process was lost
_IN_FLIGHT = 2  # shards a process: it has the next one at hand when it ends one


@dataclass(frozen=True)
class Setup:
    """What a process needs to make a worker of its own."""

    folder: str  # where the driver runs; other paths may be relative to it
    tables: tuple[str, ...]  # the folders of the pass's tables
    specs: tuple[str, ...]
    modality: Modality
    workers: int  # threads that decode
    skip_errors: bool


def encode_shards(tables: Sequence[OpenedTable], steps: Sequence[Step], worker: Worker) -> None:
    """Encode and commit planned shards, as many at a time as the cluster has processors for; where
    it has GPUs, on these.

    Args:
        tables: of one forward pass.
        worker: what a local run would use; it encodes nothing here.

    Raises:
        PrecomputeError: Ray is not installed, or a process was lost again and again; and what a
            worker raises.
        Stopped: the worker's `stopping` became true; committed shards are kept.
    """
    record = tables[0].table.record
    setup = Setup(
        os.getcwd(),
        tuple(str(one.table.folder.resolve()) for one in tables),
        tuple(str(one.spec) for one in tables),
        tables[0].modality,
        worker.workers,
        worker.skip_errors,
    )
    ray = connect(PrecomputeError)
    processors = int(ray.cluster_resources().get("CPU", 1))
    gpus = int(ray.cluster_resources().get("GPU", 0))
    at_a_time = gpus or max(1, processors // record.threads)
    threads = min(record.threads, max(1, processors // at_a_time))
    needs = {"num_cpus": threads, "num_gpus": min(gpus, 1)}  # without one Ray hides the GPUs
    task = ray.remote(**needs, max_retries=_RETRIES)(encode_shard)
    todo = deque(steps)
    running: dict[Any, Step] = {}
    while True:
        while todo and len(running) < _IN_FLIGHT * at_a_time:
            one = todo.popleft()
            own = {key: worker.sources[key] for key in one.keys}
            running[task.remote(setup, one, own)] = one
        if not running:
            break
        if worker.stopping():
            for reference in running:
                ray.cancel(reference, force=True)
            raise Stopped("stopped by a signal; committed shards are kept")
        done, _ = ray.wait(list(running), timeout=SECONDS_BETWEEN_LOOKS)
        for reference, outcome in zip(done, fetch(ray, done, _lost), strict=True):
            one = running.pop(reference)
            if outcome == "claimed":
                worker.met_another_run(named([opened.table.name for opened in tables]))
                todo.append(one)
            else:
                worker.advance(len(one.keys))
    for opened in tables:
        remove_stale_temporaries(opened.table.folder)


def _lost(reason: str) -> PrecomputeError:
    return PrecomputeError(
        f"engine ray: a process was lost {_RETRIES + 1} times over one shard "
        f"({reason}); committed shards are kept"
    )


def encode_shard(setup: Setup, step: Step, sources: Mapping[bytes, str]) -> Outcome:
    """In a process of the cluster: encode and commit the shards of a step."""
    worker, tapped = _worker(setup, frozenset(step.shards))
    worker.sources = sources
    outcome = commit_step(tapped, step, worker)
    if outcome == "claimed":
        time.sleep(SECONDS_BETWEEN_LOOKS)  # it comes back, perhaps at once
    return outcome


@lru_cache(maxsize=1)  # a process keeps its encoders from one shard to the next
def _worker(setup: Setup, places: frozenset[int]) -> tuple[Worker, dict[int, Tapped]]:
    import torch

    from precompute.torchvision_operators import declare_missing_operators

    declare_missing_operators()
    try:
        os.chdir(setup.folder)
        tables = [
            OpenedTable(Table(Path(folder)), parse_spec(spec), setup.modality)
            for folder, spec in zip(setup.tables, setup.specs, strict=True)
        ]
    except FileNotFoundError as error:
        raise PrecomputeError(
            f"{error.filename}: not seen by {socket.gethostname()}; expected cache, images and "
            "working folder at the same paths on every machine of the cluster"
        ) from error
    torch.set_num_threads(tables[0].table.record.threads)
    worker = Worker(
        sources={},
        pool=preprocessing_threads(setup.workers),
        workers=setup.workers,
        skip_errors=setup.skip_errors,
        advance=lambda _items: None,
        stopping=lambda: False,
    )
    return worker, ready(tables, places)  # canaries first
