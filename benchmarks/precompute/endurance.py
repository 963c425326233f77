"""What a kill costs stage 1, and how its memory grows."""

from __future__ import annotations

import json
import statistics

from benchmarks.inputs.photographs import write_photographs
from benchmarks.measuring.memory import memory_growth
from benchmarks.measuring.processes import run_python
from benchmarks.precompute.bench import Bench

KILL_KEYS = ("resume_overhead",)
MEMORY_KEYS = ("memory_growth_mib",)


def measure_kills(bench: Bench) -> None:
    """`resume_overhead`, in a process of its own that has computed nothing yet."""
    sizes = bench.sizes
    bench.report.begin(f"work lost by a kill: a run of {sizes.shards} shards, {sizes.kills} x")
    root, caches = bench.folder / "photographs-kills", bench.folder / "kills"
    write_photographs(root, sizes.shards * sizes.rows_per_shard)
    caches.mkdir()
    amounts = f"shards={sizes.shards}, rows_per_shard={sizes.rows_per_shard}, kills={sizes.kills}"
    code = (
        "import json; from benchmarks.measuring.kills import lost_shards\n"
        f"lost = lost_shards({str(root)!r}, {str(caches)!r}, {sizes.killed!r}, {amounts})\n"
        "print(json.dumps(lost))"
    )
    lost = json.loads(run_python("-c", code))
    bench.report.figures |= {
        "resume_overhead": round(statistics.median(lost), 3),
        "resume_overhead_max": round(max(lost), 3),
        "resume_kills": len(lost),
    }


def measure_memory(bench: Bench) -> None:
    """`memory_growth_mib`."""
    sizes = bench.sizes
    bench.report.begin(f"memory while {sizes.written_rows:,} rows of {sizes.written} are written")
    root, cache = bench.folder / "photographs-memory", bench.folder / "written"
    write_photographs(root, sizes.written_rows)
    places = ["--dataset", "jsonl", "--root", str(root), "--cache", str(cache)]
    shards = ["--rows-per-shard", str(sizes.written_rows_per_shard)]
    growth = memory_growth([*places, *shards, "--image", sizes.written], cache)
    bench.report.figures |= {
        "memory_growth_mib": round(growth, 1),
        "memory_written_bytes": sum(file.stat().st_size for file in cache.rglob("shards/*")),
    }
