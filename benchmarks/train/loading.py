"""Reading a table into memory."""

from __future__ import annotations

from pathlib import Path

import torch

import vqa_cache
from benchmarks.inputs.scale_cache import TEXT
from benchmarks.measuring.turns import median, ratio, take_turns


def loading(cache: Path, folder: Path, rounds: int) -> dict[str, float]:
    """Reading a table, every block hashed, against a copy in memory and against `torch.load` of a
    list of rows; files in the page cache, stored type."""
    table = vqa_cache.open(cache).find_table(TEXT, "text")
    stored = table.read()
    size = float(stored.nbytes)
    few = stored[: len(stored) // 20]
    path = folder / "rows.pt"
    torch.save([row.clone() for row in few], path)

    def copy() -> float:
        stored.clone()
        return size

    def read() -> float:
        table.read()
        return size

    def load_list() -> float:
        torch.load(path, weights_only=True)
        return float(few.nbytes)

    work = {"copy": copy, "read": read, "list": load_list}
    speeds = take_turns(work, rounds=rounds)
    return {
        "load_vs_memcpy": ratio(speeds, "read", "copy"),
        "load_vs_torch_load_list": ratio(speeds, "read", "list"),
        "load_gb_per_second": round(median(speeds, "read") / 1e9, 2),
    }
