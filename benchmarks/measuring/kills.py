"""What one kill -9 costs stage 1: how much work the same command then does once more.

A victim is a fork of a process that has imported the libraries. Its clock begins when the encoding
begins and stops at the last commit or at the kill, so what comes before (imports, reading the
dataset, loading the model, the canaries) is subtracted.
"""

from __future__ import annotations

import importlib
import mmap
import os
import random
import shutil
import signal
import struct
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.measuring.processes import how_it_ended
from benchmarks.measuring.victims import fork
from precompute.pipeline import Request, precompute
from precompute.progress import ConsoleReporter
from precompute.tables import EncoderSettings
from precompute.torchvision_operators import declare_missing_operators

SHARED_BY_VICTIMS = ("timm", "precompute.encode", "precompute.encoders.timm_images")


class Clock(ConsoleReporter):
    """Writes into shared memory when encoding begins and ends (seconds, monotonic; 0 = not yet)."""

    def __init__(self, shared: mmap.mmap) -> None:
        super().__init__(quiet=True)
        self._shared = shared

    def begin(self, table: str, total: int, done: int) -> None:
        super().begin(table, total, done)
        self._shared[:8] = struct.pack("d", time.monotonic())

    def end(self) -> None:
        super().end()
        self._shared[8:] = struct.pack("d", time.monotonic())


def lost_shards(
    root: str,
    folder: str,
    spec: str,
    *,
    shards: int,
    rows_per_shard: int,
    kills: int,
    seed: int = 0,
) -> list[float]:
    """The work lost by each kill, in shards.

    Each trial runs stage 1 to its end, then again with a kill at a random moment and a resumption.
    Lost is what the two parts took together beyond the whole run before, over a shard's time.

    Args:
        root: of a `jsonl` dataset with `shards * rows_per_shard` images.
        folder: for caches.
    """
    declare_missing_operators()
    for module in SHARED_BY_VICTIMS:
        importlib.import_module(module)
    settings = EncoderSettings(rows_per_shard=rows_per_shard)
    request = Request("jsonl", root, "", image=(spec,), settings=settings)
    shared = mmap.mmap(-1, 16)
    draw = random.Random(seed)
    found: list[float] = []
    run(replace(request, cache=f"{folder}/warm"), shared)
    while len(found) < kills:
        whole = run(replace(request, cache=f"{folder}/whole"), shared)
        killed = replace(request, cache=f"{folder}/killed")
        before = run_killed(killed, shared, draw.uniform(0, whole))
        if before is not None:
            found.append((before + run(killed, shared) - whole) / (whole / shards))
        for cache in Path(folder).iterdir():
            shutil.rmtree(cache)
    return found


def run(request: Request, shared: mmap.mmap) -> float:
    """Seconds from the begin of the encoding to the last commit."""
    _check(os.waitpid(start(request, shared), 0)[1])
    began, ended = _times(shared)
    return ended - began


def run_killed(request: Request, shared: mmap.mmap, seconds: float) -> float | None:
    """Seconds from the begin of the encoding to its kill, so many seconds later; None where it
    ended before."""
    victim = start(request, shared)
    while not _times(shared)[0]:
        done, status = os.waitpid(victim, os.WNOHANG)
        if done:
            _check(status)
            return None
        time.sleep(0.001)
    time.sleep(seconds)
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    _, status = os.waitpid(victim, 0)
    began, ended = _times(shared)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        _check(status)
    return None if ended else killed - began


def start(request: Request, shared: mmap.mmap) -> int:
    """Fork a process that runs stage 1; its process id."""

    def encode() -> int:
        precompute(request, Clock(shared))
        return 0

    shared[:] = bytes(len(shared))
    return fork(encode)


def _check(status: int) -> None:
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise RuntimeError(f"stage 1 {how_it_ended(code)}; it has printed why")


def _times(shared: mmap.mmap) -> tuple[float, float]:
    began, ended = struct.unpack("dd", shared[:])
    return began, ended
