"""What the care costs: syncing while stage 1 writes, checking while a table is read."""

from __future__ import annotations

import importlib
import json
import mmap
import os
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

import vqa_cache
from benchmarks.inputs.pictures import write_images
from benchmarks.inputs.scale_cache import TEXT, make_scale_cache
from benchmarks.inputs.sizes import Sizes
from benchmarks.measuring import kills
from benchmarks.measuring.turns import ratio, take_turns
from precompute.pipeline import Request
from precompute.tables import EncoderSettings
from vqa_cache.records.stored import BLOCK_BYTES

SHARDS, ROWS = 50, 64
RESNET_18 = "timm:resnet18:random=0"


def durable_overhead(folder: Path, *, spec: str, shards: int, rows: int, rounds: int) -> float:
    """The time that encoding takes with syncs over that without, in turns: the median."""
    root = folder / "pictures"
    names = write_images(root / "images", shards * rows, seed=3)
    lines = [json.dumps({"image": f"images/{name}", "question": "?"}) for name in names]
    (root / "train.jsonl").write_text("\n".join(lines) + "\n")
    for module in kills.SHARED_BY_VICTIMS:
        importlib.import_module(module)
    settings = EncoderSettings(rows_per_shard=rows, precision="fp32")
    request = Request("jsonl", str(root), "", image=(spec,), settings=settings)
    shared = mmap.mmap(-1, 16)
    kills.run(replace(request, cache=str(folder / "warm")), shared)
    ratios = []
    for number in range(rounds):
        with_syncs = kills.run(replace(request, cache=str(folder / f"synced-{number}")), shared)
        with _no_syncs():
            cache = str(folder / f"unsynced-{number}")
            ratios.append(with_syncs / kills.run(replace(request, cache=cache), shared))
    return round(statistics.median(ratios), 3)


@contextmanager
def _no_syncs() -> Iterator[None]:
    """Forks from here on find that every sync is done."""
    fsync = os.fsync
    os.fsync = lambda fd: None
    try:
        yield
    finally:
        os.fsync = fsync


def checked_load_overhead(folder: Path, sizes: Sizes, *, rounds: int) -> float:
    """The time that reading a table takes, every block checked, over that of reading the same bytes
    in the same blocks on as many threads, in turns; files in the page cache."""
    cache = folder / "scale"
    make_scale_cache(cache, sizes)
    table = vqa_cache.open(cache).find_table(TEXT, "text")
    size = float(table.stored_bytes)
    shards = sorted((table.folder / "shards").iterdir())
    target = torch.empty(sum(path.stat().st_size for path in shards), dtype=torch.uint8)
    memory = target.numpy().data

    def plain() -> float:
        blocks, start = [], 0
        for path in shards:
            for offset in range(0, path.stat().st_size, BLOCK_BYTES):
                length = min(BLOCK_BYTES, path.stat().st_size - offset)
                blocks.append((path, offset, memory[start : start + length]))
                start += length
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(_read, blocks):
                pass
        return size

    def checked() -> float:
        vqa_cache.open(cache).find_table(TEXT, "text").read()
        return size

    speeds = take_turns({"plain": plain, "checked": checked}, rounds=rounds)
    return ratio(speeds, "plain", "checked")


def _read(block: tuple[Path, int, memoryview[int]]) -> None:
    path, offset, part = block
    with path.open("rb", buffering=0) as file:
        os.preadv(file.fileno(), [part], offset)
