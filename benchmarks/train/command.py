"""Stage 2 against its limits and against what people write by hand.

The data are a cache of VQA v2's size (`make_scale_cache`): 768 + 768 wide rows, 1,000 answers.
*Limit* is the same training step on one batch that is already gathered, joined and in compute type;
*gemm* is that step's matrix products alone, same shapes and type.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from torch import nn

import vqa_cache
from benchmarks import flat, sweep
from benchmarks.inputs.caches import run_stage_1
from benchmarks.inputs.scale_cache import DATASET, IMAGE, TEXT, make_scale_cache
from benchmarks.inputs.sizes import VQA2
from benchmarks.measuring.turns import median, ratio, take_turns
from benchmarks.peers.journal_loops import journal_loop, tensor_dataset_loop
from benchmarks.train.lanes import lanes_against_single_runs
from train.baselines import always
from train.build import build_model, build_step
from train.config import Config, load_experiment
from train.device import CPU, environment
from train.evaluate import gather, measure, run_model
from train.fit import Training, Watch
from train.step import COMPUTE_TYPES, TrainingStep
from train.training_data import TrainingData, load_data
from vqa_cache.allocator import keep_freed_memory

FEATURES = (
    f"features.dataset={DATASET}",
    f"features.image={IMAGE}",
    f"features.text={TEXT}",
    "features.normalise=none",
    "train.epochs=1",
    "train.snapshot_every=0",
)
HEADS = {
    "linear": ("linear_answers",),
    "mlp1536": (
        "mlp_answers",
        "head.hidden=[1536]",
        "head.batch_norm=true",
        "head.dropout_input=0.2",
        "head.dropout=0.5",
    ),
    "cosine": ("cosine_answers", "head.hidden=[]", f"features.answer_text={TEXT}"),
}
AGAINST_LIMIT = (
    ("linear", 512),
    ("linear", 5000),
    ("mlp1536", 512),
    ("mlp1536", 5000),
    ("cosine", 5000),
)
PARTS = ("steps", "flat", "sweep")
TURN_SECONDS = 1.0
STARTS = 3  # processes whose first step is timed; the best counts


@click.command("train")
@click.option("--cache", type=click.Path(path_type=Path), help="A scale cache; made if left out.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--compile/--no-compile", "compiled", default=True, help="Try torch.compile too.")
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="May repeat.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    cache: Path | None, rounds: int, compiled: bool, only: tuple[str, ...], as_json: bool
) -> None:
    """Stage 2: steps, peers, loading, evaluation; with `flat` and `sweep`, which are benchmarks of
    their own too."""
    keep_freed_memory()
    figures: dict[str, Any] = {}
    parts = only or PARTS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "steps" in parts:
            figures |= steps(cache, folder, rounds=rounds, compiled=compiled)
        if "flat" in parts:
            figures |= flat.measure(folder, cache=None, rounds=max(2, rounds // 2))
        if "sweep" in parts:
            features = run_stage_1(folder / "easy_vqa", "easy_vqa", sweep.IMAGE)
            figures |= sweep.measure(features, folder / "sweep", rounds=max(2, rounds // 2))
    figures["environment"] = environment(CPU)
    click.echo(
        json.dumps(figures) if as_json else "\n".join(f"{k}: {v}" for k, v in figures.items())
    )


def steps(cache: Path | None, folder: Path, *, rounds: int, compiled: bool) -> dict[str, Any]:
    """What is measured over a scale cache, which is made where none is given."""
    if cache is None:
        cache = folder / "cache"
        make_scale_cache(cache, VQA2)
    figures: dict[str, Any] = {"first_step_seconds": first_step_seconds(cache, folder)}
    bench = Bench(cache, folder, rounds=rounds, compiled=compiled)
    for head, batch_size in AGAINST_LIMIT:
        figures |= bench.against_limit(head, batch_size)
    for head in ("linear", "mlp1536"):
        figures |= bench.against_journal(head)
    figures |= bench.against_tensor_dataset()
    figures |= bench.shares()
    bench.logs.close()
    figures |= loading(cache, folder, rounds)
    figures |= lanes_against_single_runs(rounds)
    return figures | {"precision": bench.data.precision}


class Bench:
    """The loaded cache and what is measured over it."""

    def __init__(self, cache: Path, folder: Path, *, rounds: int, compiled: bool) -> None:
        self.folder = folder
        self.rounds = rounds
        self.compiled = compiled
        self.logs = ExitStack()
        experiment = load_experiment("cosine_answers", [*FEATURES, f"features.answer_text={TEXT}"])
        self.data = load_data(experiment, vqa_cache.open(cache), device=CPU)

    def config(self, head: str, batch_size: int) -> Config:
        """An experiment of the benchmark."""
        name, *overrides = HEADS[head]
        more = [*FEATURES, *overrides, f"train.batch_size={batch_size}"]
        return load_experiment(name, more).config

    def training(self, head: str, batch_size: int) -> Training:
        """A training that stands at its first step."""
        folder = self.folder / f"{head}-{batch_size}-{time.monotonic_ns()}"
        config = self.config(head, batch_size)
        watch = Watch(Console(quiet=True))
        training = Training(
            config, self.data, self.data.tables, what="", folder=folder, watch=watch
        )
        training.restore()
        self.logs.callback(training.log.close)
        return training

    def against_limit(self, head: str, batch_size: int) -> dict[str, float | str]:
        """Our loop against its own step, and that against its matrix products."""
        training = self.training(head, batch_size)
        examples = training.trainable[:batch_size]
        inputs = gather(self.data.parts["train"], self.data.tables, examples)
        targets = self.data.parts["train"].truth[examples]
        engine = build_step(
            training.config,
            self.data,
            build_model(training.config, self.data, self.data.tables),
            total_steps=10**6,
        )
        work = {
            "loop": repeated(looping(training), batch_size),
            "eager": repeated(lambda: engine(inputs, targets, 0), batch_size),
            "gemm": repeated(products(engine.model, batch_size, self.data), batch_size),
        }
        limit = ["eager"]
        if self.compiled and (step := compiled_step(engine, inputs, targets)) is not None:
            work["compiled"] = repeated(step, batch_size)
            limit.append("compiled")
        speeds = take_turns(work, rounds=self.rounds)
        best = max(limit, key=lambda name: median(speeds, name))
        key = f"{head}_b{batch_size}"
        return {
            f"{key}_vs_limit": ratio(speeds, "loop", best),
            f"{key}_vs_gemm": ratio(speeds, "loop", "gemm"),
            f"{key}_samples_per_second": median(speeds, "loop"),
            f"{key}_gemm_samples_per_second": median(speeds, "gemm"),
            f"{key}_limit": best,
        }

    def against_journal(self, head: str, batch_size: int = 5000) -> dict[str, float]:
        """Our loop against the loop of the journals."""
        training = self.training(head, batch_size)
        model = build_model(training.config, self.data, self.data.tables)
        theirs = journal_loop(self.data, model.head, batch_size)
        ours = repeated(looping(training), batch_size)
        speeds = take_turns({"loop": ours, "journal": theirs}, rounds=max(2, self.rounds // 2))
        key = f"{head}_b{batch_size}"
        return {
            f"{key}_vs_journal_loop": ratio(speeds, "loop", "journal"),
            f"{key}_journal_samples_per_second": median(speeds, "journal"),
        }

    def against_tensor_dataset(self, batch_size: int = 400) -> dict[str, float]:
        """Our loop against a DataLoader over a TensorDataset."""
        training = self.training("linear", batch_size)
        theirs = tensor_dataset_loop(self.data, nn.Linear(1536, 1000), batch_size)
        ours = repeated(looping(training), batch_size)
        speeds = take_turns({"loop": ours, "tensors": theirs}, rounds=self.rounds)
        return {f"linear_b{batch_size}_vs_tensordataset": ratio(speeds, "loop", "tensors")}

    def shares(self) -> dict[str, float]:
        """Validation, metrics and a snapshot against an epoch of training, linear head."""
        training = self.training("linear", 5000)
        steps = len(training.bounds)

        def train_epoch() -> None:
            for _ in range(steps):
                training.train_step()

        epoch_seconds = timed(train_epoch)
        validation = self.data.parts["val"]
        outputs = always(validation, 0)

        def validate() -> None:
            nonlocal outputs
            outputs = run_model(training.model, validation, self.data.tables, self.data.precision)

        validation_seconds = timed(validate)
        vocabulary = self.data.vocabulary
        metrics_seconds = timed(lambda: measure(validation, outputs, vocabulary))
        snapshot_seconds = timed(training.save)
        return {
            "epoch_seconds": round(epoch_seconds, 2),
            "validation_share": round(validation_seconds / epoch_seconds, 4),
            "metrics_share": round(metrics_seconds / epoch_seconds, 4),
            "snapshot_share": round(snapshot_seconds / epoch_seconds, 4),
        }


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


def looping(training: Training) -> Callable[[], object]:
    """The next step of a training that begins again at its end."""

    def step() -> None:
        if training.step == training.total:
            training.step = 0
        training.train_step()

    return step


def repeated(step: Callable[[], object], batch_size: int) -> Callable[[], float]:
    """A turn of so many steps that it lasts about a second."""
    step()
    seconds = max(timed(step), 1e-4)
    steps = max(1, round(TURN_SECONDS / seconds))

    def turn() -> float:
        for _ in range(steps):
            step()
        return float(steps * batch_size)

    return turn


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def products(model: nn.Module, rows: int, data: TrainingData) -> Callable[[], object]:
    """The matrix products of a step: each layer's output, its weight's gradient and, but for the
    first layer, its input's gradient."""
    half = COMPUTE_TYPES[data.precision]
    layers = [m.weight.detach().to(half) for m in model.modules() if isinstance(m, nn.Linear)]
    trained = [True] * len(layers)
    answers = getattr(getattr(model, "head", None), "answers", None)
    if answers is not None:  # the cosine head's answer matrix is never trained
        layers.append(answers.to(half))
        trained.append(False)
    inputs = [torch.randn(rows, weight.shape[1]).to(half) for weight in layers]
    gradients = [torch.randn(rows, weight.shape[0]).to(half) for weight in layers]

    def run() -> None:
        for number, weight in enumerate(layers):
            inputs[number] @ weight.T
            if trained[number]:
                gradients[number].T @ inputs[number]
            if number:
                gradients[number] @ weight

    return run


def compiled_step(
    engine: TrainingStep, inputs: dict[str, torch.Tensor], targets: torch.Tensor
) -> Callable[[], object] | None:
    """The same step with a compiled model; None where there is no C++ compiler."""
    try:
        other = TrainingStep(
            torch.compile(engine.model),  # type: ignore[arg-type]
            engine.loss,
            engine.optimizer,
            schedule=engine.schedule,
            seed=0,
            precision=engine.precision,
        )
        other(inputs, targets, 0)
    except Exception as error:  # the compiler raises its own kinds
        click.echo(f"limit: eager alone ({type(error).__name__}: {str(error)[:80]})", err=True)
        return None
    return lambda: other(inputs, targets, 0)


def first_step_seconds(cache: Path, folder: Path) -> float:
    """From process start to the first optimiser step of `linear_answers`, without `import torch`,
    with the files in the page cache."""
    overrides = [*FEATURES, "train.batch_size=5000"]
    code = (
        "import time; began = time.perf_counter(); import torch; "
        "imported = time.perf_counter() - began\n"
        "from benchmarks.train.command import until_first_step\n"
        f"until_first_step({str(cache)!r}, {str(folder / 'first')!r}, {overrides!r})\n"
        "print(time.clock_gettime(time.CLOCK_MONOTONIC), imported)\n"
    )
    found = []
    for _ in range(STARTS):
        began = time.clock_gettime(time.CLOCK_MONOTONIC)
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        ended, imported = map(float, done.stdout.split())
        found.append(ended - began - imported)
    return round(min(found), 2)


def until_first_step(cache: str, folder: str, overrides: list[str]) -> None:
    """What a run does up to its first step."""
    keep_freed_memory()
    experiment = load_experiment("linear_answers", overrides)
    data = load_data(experiment, vqa_cache.open(cache), device=CPU)
    watch = Watch(Console(quiet=True))
    training = Training(
        experiment.config, data, data.tables, what="", folder=Path(folder), watch=watch
    )
    training.restore()
    training.train_step()
    training.log.close()
