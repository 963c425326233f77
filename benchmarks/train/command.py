"""Stage 2 against its limits and against what people write by hand.

What `_vs_` compares takes turns in one run; a figure is the median over the rounds. The data are a
cache of VQA v2's size (`make_scale_cache`): rows 768 + 768 wide, 1,000 answers. HEAD is `linear`
(1536 -> 1000), `mlp1536` (1536 -> 1536 -> 1000, batch normalisation, dropout 0.2 and 0.5) or
`cosine` (against the answers' rows), N a batch size.

\b
steps:
HEAD_bN_vs_limit             our loop over an epoch against its own step, eager or compiled,
                             whichever is faster, on one batch that is already gathered, joined and
                             in compute type; `HEAD_bN_limit` says which it was
HEAD_bN_vs_gemm              ... against that step's matrix products alone, same shapes and type
HEAD_b5000_vs_journal_loop   ... against a dict Dataset, DataLoader, fp32 and Adam
linear_b400_vs_tensordataset ... against a TensorDataset of joined rows, DataLoader, fp32 and Adam
load_vs_memcpy               reading a table, every block hashed, against a copy in memory
load_vs_torch_load_list      ... against `torch.load` of a list of rows
first_step_seconds           from process start to the first optimizer step, without `import torch`;
                             the best of three starts
validation_share             a pass over the 214,354 validation questions, of an epoch's time
metrics_share                all metrics of those questions, of an epoch's time
snapshot_share               writing a snapshot, of an epoch's time
lanes32_small                32 heads 256 -> 64 -> 100 in one pass, batch 256, against 32 single
                             runs
\b
flat (a benchmark of its own too):
flat_*                       a table larger than memory against a resident one, and its shuffle
                             against a full one
\b
sweep (a benchmark of its own too):
sweep_vs_process_per_trial   32 trials of 3 epochs as one sweep against a process for each
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

import vqa_cache
from benchmarks import flat, sweep
from benchmarks.inputs.caches import run_stage_1
from benchmarks.inputs.scale_cache import make_scale_cache
from benchmarks.inputs.sizes import VQA2
from benchmarks.measuring.report import Report, json_option, reported
from benchmarks.train.bench import Bench
from benchmarks.train.first_step import first_step_seconds
from benchmarks.train.lanes import lanes_against_single_runs
from benchmarks.train.limits import against_limit
from benchmarks.train.loading import loading
from benchmarks.train.loops import against_journal, against_tensor_dataset
from benchmarks.train.shares import shares
from train.inputs.device import environment
from vqa_cache.system.allocator import keep_freed_memory
from vqa_cache.system.commands import Command
from vqa_cache.system.device import CPU

AGAINST_LIMIT = (
    ("linear", 512),
    ("linear", 5000),
    ("mlp1536", 512),
    ("mlp1536", 5000),
    ("cosine", 5000),
)
PARTS = ("steps", "flat", "sweep")


@click.command("train", cls=Command, help=__doc__)
@click.option("--cache", type=click.Path(path_type=Path), help="A scale cache; made if left out.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--compile/--no-compile", "compiled", default=True, help="Try torch.compile too.")
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="May repeat.")
@json_option
def command(
    cache: Path | None, rounds: int, compiled: bool, only: tuple[str, ...], as_json: bool
) -> None:
    keep_freed_memory()
    parts = only or PARTS
    with reported(as_json=as_json) as report, tempfile.TemporaryDirectory() as name:
        report.figures["environment"] = environment(CPU)
        folder = Path(name)
        if "steps" in parts:
            measure_steps(report, cache, folder, rounds=rounds, compiled=compiled)
        if "flat" in parts:
            flat.measure(report, folder, cache=None, rounds=max(2, rounds // 2))
        if "sweep" in parts:
            report.begin("stage 1 writes a cache to sweep over")
            features = run_stage_1(folder / "easy_vqa", "easy_vqa", sweep.IMAGE)
            sweep.measure(report, features, folder / "sweep", rounds=max(2, rounds // 2))


def measure_steps(
    report: Report, cache: Path | None, folder: Path, *, rounds: int, compiled: bool
) -> None:
    """What is measured over a scale cache, which is made where none is given."""
    if cache is None:
        cache = folder / "cache"
        report.begin("a cache of VQA v2's size is written")
        make_scale_cache(cache, VQA2)
    vqa_cache.open(cache)  # a folder that holds none fails here, in a line
    report.begin("from the start of a process to its first step")
    report.figures["first_step_seconds"] = first_step_seconds(cache, folder)
    report.begin("the cache is loaded")
    bench = Bench(cache, folder, rounds=rounds)
    report.figures["precision"] = bench.data.precision
    with bench.logs:
        for head, batch_size in AGAINST_LIMIT:
            report.begin(f"{head}, batch {batch_size:,}: against its own step, matrix products")
            report.figures |= against_limit(bench, head, batch_size, compiled=compiled)
        for head in ("linear", "mlp1536"):
            report.begin(f"{head}: against the journals' loop")
            report.figures |= against_journal(bench, head)
        report.begin("linear: against a TensorDataset")
        report.figures |= against_tensor_dataset(bench)
        report.begin("validation, metrics and a snapshot beside an epoch")
        report.figures |= shares(bench)
    report.begin("a table read, against a copy in memory and torch.load")
    report.figures |= loading(cache, folder, rounds)
    report.begin("32 small heads in one pass against single runs")
    report.figures |= lanes_against_single_runs(rounds)
