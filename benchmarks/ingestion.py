"""Reading examples at VQA v2's size: its official files, made, with 658,111 questions.

\b
ingest_seconds, ingest_peak_gb        stage 1 reads both splits, hashes 123,287 image files (a few
                                      bytes each) and writes the columns: in a process of its own,
                                      whose highest resident memory counts
*_cpu_seconds                         of the processors, with the start of the interpreter: what
                                      holds beside other work
check_seconds, check_peak_gb          `python -m data check --limit 0`: no image is opened
questions, bytes                      how many, and of how many bytes of JSON
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.inputs.official_files import write_official_files
from benchmarks.inputs.sizes import VQA2, Sizes
from benchmarks.measuring.processes import run_python
from benchmarks.measuring.report import json_option, reported
from vqa_cache.system.commands import Command

DATASET = "vqa2"


@click.command("ingestion", cls=Command, help=__doc__)
@click.option("--share", default=1.0, show_default=True, type=click.FloatRange(0.0, 1.0, True))
@json_option
def command(share: float, as_json: bool) -> None:
    with reported(as_json=as_json) as report, tempfile.TemporaryDirectory() as name:
        root = Path(name) / DATASET
        sizes = part_of(VQA2, share)
        report.begin(f"{sum(sizes.questions.values()):,} questions are written")
        write_official_files(root, sizes)
        report.figures |= {
            "questions": sum(sizes.questions.values()),
            "bytes": sum(path.stat().st_size for path in root.glob("*.json")),
        }
        for what in ("ingest", "check"):
            report.begin(what)
            told = run_python("-m", "benchmarks.ingestion", what, str(root))
            found = json.loads(told.splitlines()[-1])
            report.figures |= {f"{what}_{key}": value for key, value in found.items()}


def part_of(sizes: Sizes, share: float) -> Sizes:
    """A share of everything, 2 of each at least."""

    def some(count: int) -> int:
        return max(2, round(count * share))

    return Sizes(
        {split: some(count) for split, count in sizes.images.items()},
        {split: some(count) for split, count in sizes.questions.items()},
        some(sizes.distinct_questions),
        some(sizes.answers),
    )


def ingest(root: Path) -> None:
    """All of stage 1 up to its first encoder."""
    from data.registry import open_dataset
    from precompute.items import ImageHashing, Wanted, collect_split
    from vqa_cache.cache import create_cache
    from vqa_cache.examples import write_split
    from vqa_cache.memo import Memo

    dataset = open_dataset(DATASET, root)
    cache = create_cache(root / "cache")
    memo = Memo(root / "memo.sqlite")
    hashing, wanted = ImageHashing(memo, workers=2, rehash=False), Wanted()
    for name in dataset.splits():
        split = collect_split(
            dataset, name, limit=None, skip_errors=False, hashing=hashing, wanted=wanted
        )
        write_split(
            cache.path / "examples" / DATASET / name,
            split.columns,
            examples=split.examples,
            annotated=split.annotated,
            limit=None,
            skipped=split.skipped,
        )
    memo.close()


def check(root: Path) -> None:
    """What `python -m data check --limit 0 --json` does."""
    from data.check import as_object, check_dataset
    from data.registry import open_dataset

    json.dumps(as_object(check_dataset(DATASET, open_dataset(DATASET, root), 0)))


def _measured(what: str, root: Path) -> dict[str, Any]:
    began = time.perf_counter()
    {"ingest": ingest, "check": check}[what](root)
    seconds, busy = time.perf_counter() - began, time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(busy, 2),
        "peak_gb": round(peak / 1e9, 3),
    }


if __name__ == "__main__":
    print(json.dumps(_measured(sys.argv[1], Path(sys.argv[2]))))
