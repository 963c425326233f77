"""`--engine ray`: whole packs on a Ray cluster, several at a time.

A local cluster is started, or the one that RAY_ADDRESS names is used; its machines have to see the
cache and this package at the same paths. A process of the cluster reads the data and trains, as the
local engine does, with as many threads and in the precision of the driver, so that the trials are
the same. Outcomes return to the driver, which alone writes. Ray trains a pack again whose process
was lost.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from rich.console import Console

from train.config.precisions import Precision
from train.errors import TrainError
from train.loop.progress import say
from train.loop.training_loop import Watch
from train.sweep.engine import Data, Pack, train_one
from train.sweep.pack import Outcome
from vqa_cache.system.ray_cluster import connect, fetch
from vqa_cache.system.signals import Stopped

_RETRIES = 3  # of a pack whose process was lost
_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class Setup:
    """What a process needs to read the data as the driver does.

    Attributes:
        folder: where the driver runs; other paths may be relative to it.
    """

    folder: str
    cache: str
    precisions: Mapping[str, Precision]
    threads: int


def run_packs_on_ray(
    packs: Sequence[Pack], data: Data, watch: Watch
) -> Iterator[tuple[int, list[Outcome]]]:
    """As `engine.run_packs`, in the order in which they end.

    Raises:
        TrainError: Ray is not installed, the cluster is out of reach, or a process was lost again
            and again; and what a process raises.
        Stopped: a signal came; packs that were yielded are whole.
    """
    if not packs:
        return
    ray = connect(TrainError)
    resources = ray.cluster_resources()
    threads = min(torch.get_num_threads(), int(resources.get("CPU", 1)))
    setup = Setup(os.getcwd(), str(data.folder), data.precisions, threads)
    how = {"num_cpus": threads, "num_gpus": int("GPU" in resources), "max_retries": _RETRIES}
    task = ray.remote(**how)(train_remotely)
    running = {task.remote(setup, pack): place for place, pack in enumerate(packs)}
    try:
        while running:
            if watch.stopping():
                raise Stopped("stopped by a signal")
            done, _ = ray.wait(list(running), timeout=_SECONDS_BETWEEN_LOOKS)
            for reference in done:
                place = running.pop(reference)
                outcomes = fetch(ray, reference, partial(_lost, packs[place]))
                say(watch.console, f"{packs[place].what}: trained")
                yield place, outcomes
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def train_remotely(setup: Setup, pack: Pack) -> list[Outcome]:
    """In a process of the cluster: train one pack."""
    torch.set_num_threads(setup.threads)
    data = _data(setup.folder, setup.cache)
    data.precisions = dict(setup.precisions)
    return train_one(pack, data, Watch(Console(quiet=True)))


@lru_cache(maxsize=1)  # a process keeps what it has read from one pack to the next
def _data(folder: str, cache: str) -> Data:
    try:
        os.chdir(folder)
    except FileNotFoundError as error:
        raise TrainError(
            f"{folder}: not seen by {socket.gethostname()}; expected cache and working folder at "
            "the same paths on every machine of the cluster"
        ) from error
    return Data(Path(cache))


def _lost(pack: Pack, reason: str) -> TrainError:
    return TrainError(
        f"engine ray: a process was lost {_RETRIES + 1} times over {pack.what} "
        f"({reason}); finished packs are kept"
    )
