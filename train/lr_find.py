"""`python -m train.lr_find EXP`: many learning rates in one pass, and the one that works best."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from train.command_line import (
    TrainingCommand,
    cache_option,
    json_option,
    overrides_argument,
)
from train.errors import ConfigError, TrainError

if TYPE_CHECKING:
    from train.loop.training_loop import Watch

RATES = 64
BAR = 40  # characters


@dataclass(frozen=True)
class Tried:
    """A learning rate and what it came to on the selection part; None where it diverged."""

    lr: float
    accuracy: float | None
    cross_entropy: float | None


@click.command(cls=TrainingCommand, stopped="nothing is written")
@click.argument("experiment")
@overrides_argument
@click.option("--low", type=float, default=1e-5, help="Lowest rate.")
@click.option("--high", type=float, default=1.0, help="Highest rate.")
@click.option("--rates", type=click.IntRange(min=2), default=RATES)
@click.option("--epochs", type=click.IntRange(min=1), default=1)
@cache_option
@json_option
def command(
    experiment: str,
    overrides: tuple[str, ...],
    low: float,
    high: float,
    rates: int,
    epochs: int,
    cache: Path,
    as_json: bool,
) -> None:
    """Train EXPERIMENT with learning rates from --low to --high, all in one pass over the data.

    The rate does not change during the pass. Nothing is written.
    """
    if not 0 < low < high < math.inf:
        raise ConfigError([f"--low {low} --high {high}: expected finite rates, 0 < low < high"])
    from train.loop.training_loop import Watch
    from vqa_cache.system.signals import StopSignal

    console = Console(stderr=as_json)
    watch = Watch(console, stopping=StopSignal())
    grid = rate_grid(low, high, rates)
    tried = try_rates(experiment, overrides, grid, epochs=epochs, cache=cache, watch=watch)
    best = best_of(tried)
    if as_json:
        rows = [vars(one) for one in tried]
        click.echo(json.dumps({"experiment": experiment, "lr": best.lr, "rates": rows}))
        return
    plot(tried, best, console)


def rate_grid(low: float, high: float, count: int) -> list[float]:
    """Rates from `low` to `high` in equal ratios, rounded to four digits."""
    ratio = (high / low) ** (1 / (count - 1))
    return [float(f"{low * ratio**place:.4g}") for place in range(count)]


def try_rates(
    name: str,
    overrides: Sequence[str],
    rates: Sequence[float],
    *,
    epochs: int,
    cache: Path,
    watch: Watch,
) -> list[Tried]:
    """Train one lane for each rate, at a constant rate.

    Raises:
        TrainError: the experiment or its data cannot be trained on.
        Stopped: a signal came.
    """
    import vqa_cache
    from train.config.files import load_experiment
    from train.config.schema import Component
    from train.engine.data import load_data
    from train.sweep.pack import train_pack

    experiment = load_experiment(name, [*overrides, f"train.epochs={epochs}"])
    constant = Component(name="constant", warmup_steps=0)
    config = experiment.config.model_copy(update={"schedule": constant})
    configs = []
    for rate in rates:
        options = {**config.optimizer.options, "lr": rate}
        optimizer = Component(name=config.optimizer.name, **options)
        configs.append(config.model_copy(update={"optimizer": optimizer}))
    data = load_data(experiment, vqa_cache.open(cache))
    what = f"{experiment.name}, {len(rates)} learning rates"
    outcomes = train_pack(configs, data, pruner="none", what=what, watch=watch)
    return [
        Tried(rate, *((score.accuracy, score.cross_entropy) if score else (None, None)))
        for rate, score in zip(rates, (outcome.score for outcome in outcomes), strict=True)
    ]


def best_of(tried: Sequence[Tried]) -> Tried:
    """The rate with the lowest cross-entropy; of equals the lower rate. Raises TrainError."""
    good = [one for one in tried if one.cross_entropy is not None]
    if not good:
        raise TrainError(
            f"every rate from {tried[0].lr:g} to {tried[-1].lr:g} diverged; lower --low and --high"
        )
    return min(good, key=lambda one: (one.cross_entropy, one.lr))


def plot(tried: Sequence[Tried], best: Tried, console: Console) -> None:
    """A line for each rate: its accuracy, and a bar as long as its cross-entropy is low."""
    from train.loop.progress import say

    losses = [one.cross_entropy for one in tried if one.cross_entropy is not None]
    low, high = min(losses), sorted(losses)[len(losses) * 3 // 4]  # the worst quarter has no bar
    say(console, f"{'lr':>9}  accuracy  cross-entropy")
    for one in tried:
        say(console, f"{one.lr:9.2e}  {_line(one, low, high)}{' <' if one is best else ''}")
    say(console, f"optimizer.lr={best.lr:g}")


def _line(one: Tried, low: float, high: float) -> str:
    if one.accuracy is None or one.cross_entropy is None:
        return "diverged"
    share = (high - one.cross_entropy) / (high - low) if high > low else 1.0
    bar = "█" * max(0, round(BAR * share))
    return f"{one.accuracy:8.4f}  {one.cross_entropy:13.4f}  {bar}"


if __name__ == "__main__":
    command()
