"""Our training loop against its own step and that step's matrix products."""

from __future__ import annotations

from collections.abc import Callable

import click
import torch
from torch import nn

from benchmarks.measuring.turns import median, ratio, take_turns
from benchmarks.train.bench import Bench, looping, repeated
from train.config.precisions import COMPUTE_TYPES
from train.engine.build import build_model, build_step
from train.engine.step import TrainingStep
from train.inputs.batch import gather
from train.inputs.load import TrainingData
from train.inputs.specification import Input


def against_limit(
    bench: Bench, head: str, batch_size: int, *, compiled: bool
) -> dict[str, float | str]:
    """Our loop against its own step, and that against its matrix products.

    Args:
        compiled: try the step with `torch.compile` too; the faster one is the limit.
    """
    training = bench.training(head, batch_size)
    examples = training.trainable[:batch_size]
    inputs = gather(bench.data.parts["train"], bench.data.tables, examples)
    targets = bench.data.parts["train"].truth[examples]
    engine = build_step(
        training.config,
        bench.data,
        build_model(training.config, bench.data, bench.data.tables),
        total_steps=10**6,
    )
    work = {
        "loop": repeated(looping(training), batch_size),
        "eager": repeated(lambda: engine(inputs, targets, 0), batch_size),
        "gemm": repeated(products(engine.model, batch_size, bench.data), batch_size),
    }
    limit = ["eager"]
    if compiled and (step := compiled_step(engine, inputs, targets)) is not None:
        work["compiled"] = repeated(step, batch_size)
        limit.append("compiled")
    speeds = take_turns(work, rounds=bench.rounds)
    best = max(limit, key=lambda name: median(speeds, name))
    key = f"{head}_b{batch_size}"
    return {
        f"{key}_vs_limit": ratio(speeds, "loop", best),
        f"{key}_vs_gemm": ratio(speeds, "loop", "gemm"),
        f"{key}_samples_per_second": median(speeds, "loop"),
        f"{key}_gemm_samples_per_second": median(speeds, "gemm"),
        f"{key}_limit": best,
    }


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
    engine: TrainingStep, inputs: dict[str, Input], targets: torch.Tensor
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
