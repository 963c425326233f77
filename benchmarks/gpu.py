"""Stage 2 on one GPU: steps of a head 1536 -> 1536 -> 1000 beside their floor, and a sweep.

It needs torch, numpy, h5py, xxhash, click, rich and safetensors alone, and no cache. The floor of a
step is its matrix products at the rate of a large one, plus what the optimiser and the gathering
must move at the bandwidth of a copy, both measured here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.inputs.gpu_data import Data, write_data
from benchmarks.inputs.sizes import VQA2, WIDTH, Sizes
from benchmarks.measuring.turns import median, take_turns
from train.config.precisions import Precision
from train.engine import optimizers, schedules
from train.engine.cuda_graph import CapturedSteps, check_against_eager
from train.engine.model import AnswerModel
from train.engine.precision import choose_precision
from train.engine.step import EagerSteps, Steps, TrainingStep, forward
from train.fusion.concat import Concat
from train.heads.mlp import MlpHead
from train.inputs.device import environment
from train.lanes.loss import LaneCrossEntropy
from train.lanes.optimizer import LaneAdamW
from train.lanes.stack import LaneModel
from train.lanes.step import LaneStep
from train.losses.cross_entropy import CrossEntropy
from vqa_cache.system.commands import Command
from vqa_cache.system.device import choose_device

RESULTS = Path(__file__).parent / "results"
CHECKED_STEPS = 50
OPTIMIZER_BYTES = 28 + 6  # a parameter: p, g, m, v read and p, m, v written; cast to two bytes
WITHOUT_GPU = "torch finds no CUDA device: nothing was measured"


@dataclass(frozen=True)
class Work:
    """How much is measured.

    Attributes:
        probe: side of the matrices whose product counts as the peak rate.
        copied: bytes of the copy whose rate counts as the bandwidth.
        steps: of a turn.
        lanes: trials that share a pass.
    """

    batch_sizes: tuple[int, ...] = (8192, 512)
    hidden: int = 1536
    steps: int = 400
    rounds: int = 5
    probe: int = 8192
    copied: int = 1 << 30
    trials: int = 128
    lanes: int = 128
    epochs: int = 20
    sweep_batch: int = 2048
    sweep_hidden: int = 512


@click.command("gpu", cls=Command)
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="Folder of results.")
@click.option("--sweep-batch", default=Work.sweep_batch, show_default=True)
@click.option("--lanes", default=Work.lanes, show_default=True, help="Trials that share a pass.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(out: Path, sweep_batch: int, lanes: int, as_json: bool) -> None:
    """Stage 2 on one GPU. Without one: says so."""
    device = choose_device()
    if device.type == "cpu":
        click.echo(json.dumps({"gpu": None, "reason": WITHOUT_GPU}) if as_json else WITHOUT_GPU)
        return
    figures = measure(device, VQA2, Work(sweep_batch=sweep_batch, lanes=lanes))
    text = json.dumps(figures, indent=1)
    name = re.sub(r"[^a-z0-9]+", "-", figures["gpu"].lower()).strip("-")
    out.mkdir(parents=True, exist_ok=True)
    (out / f"gpu-{name}.json").write_text(text + "\n", encoding="utf-8")
    click.echo(
        json.dumps(figures) if as_json else "\n".join(f"{k}: {v}" for k, v in figures.items())
    )


def measure(device: torch.device, sizes: Sizes, work: Work) -> dict[str, Any]:
    """All figures."""
    precision = choose_precision("auto", device, rows=512, inner=WIDTH, outer=WIDTH)
    found = environment(device)
    figures: dict[str, Any] = {"gpu": found["device"], "precision": precision}
    peak = Peak.of(device, precision, work)
    figures |= {"gemm_flop_per_second": peak.flops, "copy_bytes_per_second": peak.bandwidth}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "data.safetensors"
        write_data(path, sizes)
        data = Data(path, device, precision)
        differences = checked(data, work)
        figures |= {f"graph_{what}_difference": value for what, value in differences.items()}
        for size in work.batch_sizes:
            figures |= steps_against_floor(data, size, peak, work)
        batches = data.batches(work.batch_sizes[-1])
        steps = CapturedSteps(
            engine_of(data, [work.hidden]),
            data.train_batch,
            {work.batch_sizes[-1]},
            capacity=work.steps,
        )
        figures["synchronisations"] = synchronisations(turn(steps, batches, work)) / work.steps
        figures |= sweep_against_processes(data, path, work)
    return {**figures, "environment": found}


@dataclass(frozen=True)
class Peak:
    """What a device reached: floating-point operations and bytes (read and written) a second."""

    flops: float
    bandwidth: float

    @classmethod
    def of(cls, device: torch.device, precision: Precision, work: Work) -> Peak:
        """The best of several tries at a large product and a large copy."""
        kind = torch.float32 if precision == "fp32" else torch.bfloat16
        left = torch.randn(work.probe, work.probe, device=device).to(kind)
        product = torch.empty_like(left)
        source = torch.zeros(work.copied, dtype=torch.uint8, device=device)
        copy = torch.empty_like(source)
        operations, moved = 2.0 * work.probe**3, 2.0 * work.copied
        return cls(
            operations / fastest(lambda: torch.mm(left, left, out=product), device),
            moved / fastest(lambda: copy.copy_(source), device),
        )


def fastest(run: Callable[[], object], device: torch.device, tries: int = 5) -> float:
    """Seconds of one call, from tries of ten after one that warms up."""
    seconds = []
    for _ in range(tries + 1):
        synchronise(device)
        began = time.perf_counter()
        for _ in range(10):
            run()
        synchronise(device)
        seconds.append((time.perf_counter() - began) / 10)
    return min(seconds[1:])


def synchronise(device: torch.device) -> None:
    """Wait until a device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def head(data: Data, hidden: list[int], **options: Any) -> AnswerModel:
    """An MLP over both rows, with weights of seed 0, on the data's device."""
    torch.manual_seed(0)
    join = Concat({modality: table.width for modality, table in data.tables.items()})
    mlp = MlpHead(join.out_features, data.answers, hidden=hidden, **options)
    return AnswerModel(join, mlp).to(data.device)


def engine_of(data: Data, hidden: list[int], total: int = 10_000, **options: Any) -> TrainingStep:
    """Its training step: cross-entropy, AdamW, cosine schedule."""
    model = head(data, hidden, **options)
    return TrainingStep(
        model,
        CrossEntropy(),
        optimizers.AdamW(model, lr=1e-3),
        schedule=schedules.cosine(total, warmup_steps=10),
        seed=0,
        precision=data.precision,
    )


def checked(data: Data, work: Work) -> dict[str, float]:
    """The graph against the eager step, with batch normalisation, dropout, a schedule and a smaller
    last batch. Raises RuntimeError where they differ."""
    size = work.batch_sizes[-1]
    batches = data.batches(size)[: CHECKED_STEPS - 1]
    last = batches[0][: size // 2 + 1]

    def build() -> TrainingStep:
        return engine_of(data, [work.hidden], CHECKED_STEPS, dropout=0.5, batch_norm=True)

    return check_against_eager(build, data.train_batch, [*batches, last])


def steps_against_floor(data: Data, size: int, peak: Peak, work: Work) -> dict[str, float]:
    """Samples a second of captured and of eager steps, which take turns, and the floor's."""
    batches = [batch for batch in data.batches(size) if len(batch) == size]
    graphs = CapturedSteps(
        engine_of(data, [work.hidden]), data.train_batch, {size}, capacity=work.steps
    )
    eager = EagerSteps(engine_of(data, [work.hidden]), data.train_batch)
    turns = {"graph": turn(graphs, batches, work), "eager": turn(eager, batches, work)}
    speeds = take_turns(turns, rounds=work.rounds)
    floor = floor_seconds(data, size, [2 * WIDTH, work.hidden, data.answers], peak)
    return {
        f"b{size}_samples_per_second": median(speeds, "graph"),
        f"b{size}_eager_samples_per_second": median(speeds, "eager"),
        f"b{size}_floor_samples_per_second": round(size / floor, 1),
        f"b{size}_vs_floor": round(median(speeds, "graph") * floor / size, 3),
    }


def turn(steps: Steps, batches: list[torch.Tensor], work: Work) -> Callable[[], float]:
    """So many steps, and waiting for them; how many samples they were."""

    def run() -> float:
        for number in range(work.steps):
            steps(batches[number % len(batches)], number)
        steps.losses()
        return float(work.steps * len(batches[0]))

    return run


def floor_seconds(data: Data, size: int, widths: list[int], peak: Peak) -> float:
    """What a step cannot go below: products and traffic, one after the other."""
    layers = [inner * outer for inner, outer in pairwise(widths)]
    # output and weight gradient of every layer, input gradient of all but the first
    operations = 2.0 * size * (2 * sum(layers) + sum(layers[1:]))
    parameters = sum(layers) + sum(widths[1:])
    number = next(iter(data.tables.values())).compute_type.itemsize
    moved = parameters * OPTIMIZER_BYTES + 2.0 * size * widths[0] * number
    return operations / peak.flops + moved / peak.bandwidth


def synchronisations(run: Callable[[], object]) -> int:
    """How often the CPU waited for the GPU, but for the last time, when a turn reads its losses."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waited = sum("called a synchronizing" in str(warning.message) for warning in caught)
    return max(0, waited - 1)


def sweep_against_processes(data: Data, path: Path, work: Work) -> dict[str, Any]:
    """All trials in packs of lanes, against a process for each with eager steps. One such process
    is timed, and taken as often as there are trials; its imports are not counted."""
    began = time.perf_counter()
    accuracies: list[float] = []
    for first in range(0, work.trials, work.lanes):
        rates = trial_rates(work)[first : first + work.lanes]
        accuracies += train_lanes(data, rates, work)
    sweep_seconds = time.perf_counter() - began
    best = max(range(work.trials), key=accuracies.__getitem__)
    code = (
        "import time; began = time.perf_counter()\n"
        "import json, torch; from benchmarks.gpu import Work, train_alone\n"
        "imported = time.perf_counter() - began\n"
        f"accuracy = train_alone({str(path)!r}, {str(data.device)!r}, {data.precision!r},"
        f" {trial_rates(work)[best]!r}, {work!r})\n"
        "print(json.dumps([imported, accuracy]))\n"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    imported, accuracy = json.loads(done.stdout.splitlines()[-1])
    return {
        "sweep_seconds": round(sweep_seconds, 2),
        "sweep_vs_process_per_trial": round((seconds - imported) * work.trials / sweep_seconds, 2),
        "sweep_trials": work.trials,
        "sweep_batch_size": work.sweep_batch,
        "sweep_best_accuracy": round(accuracies[best], 4),
        "process_accuracy": round(accuracy, 4),
        "process_seconds": round(seconds - imported, 2),
        "process_import_seconds": round(imported, 2),
    }


def trial_rates(work: Work) -> list[float]:
    """The learning rate of each trial, in equal ratios from 1e-4 to 1e-2."""
    return torch.logspace(-4, -2, work.trials, dtype=torch.float64).tolist()


def train_lanes(data: Data, rates: list[float], work: Work) -> list[float]:
    """Train one lane for each rate; their accuracies after the last epoch."""
    models = [head(data, [work.sweep_hidden], dropout=0.2) for _ in rates]
    model = LaneModel(models, [0] * len(rates))
    lr = torch.tensor(rates, dtype=torch.float64, device=data.device)
    step = LaneStep(
        model,
        LaneCrossEntropy([CrossEntropy() for _ in rates], data.device),
        LaneAdamW(model.parameters(), model.decays, lr=lr, weight_decay=torch.full_like(lr, 0.01)),
        schedule=schedules.constant(10**6),
        precision=data.precision,
    )
    return train_epochs(data, model, step, work)


def train_alone(path: str, device: str, precision: Precision, rate: float, work: Work) -> float:
    """One trial with eager steps, as a process of its own would; its accuracy."""
    data = Data(Path(path), torch.device(device), precision)
    model = head(data, [work.sweep_hidden], dropout=0.2)
    step = TrainingStep(
        model,
        CrossEntropy(),
        optimizers.AdamW(model, lr=rate),
        schedule=schedules.constant(10**6),
        seed=0,
        precision=precision,
    )
    return train_epochs(data, model, step, work)[0]


def train_epochs(
    data: Data, model: torch.nn.Module, step: TrainingStep | LaneStep, work: Work
) -> list[float]:
    """Train and, after each epoch, evaluate; the last accuracies, one for each lane."""
    number = 0
    found: list[float] = []
    for epoch in range(work.epochs):
        for examples in data.batches(work.sweep_batch, epoch):
            step(*data.train_batch(examples), number)
            number += 1
        found = accuracies_of(data, model, work.sweep_batch)
    return found


@torch.no_grad()
def accuracies_of(data: Data, model: torch.nn.Module, size: int) -> list[float]:
    """Share of right answers on the validation split, one for each lane."""
    model.eval()
    n = len(data.splits["val"].truth)
    right = torch.zeros((), device=data.device)
    for examples in torch.arange(n, device=data.device).split(size):
        inputs, truth = data.batch("val", examples)
        answered = forward(model, inputs, data.precision).argmax(dim=-1)
        right = right + (answered == truth).sum(dim=-1)
    return (right / n).reshape(-1).tolist()
