"""`python -m train EXP [KEY=VALUE ...]`: train one experiment. The last line is `run: <path>`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from train.command_line import TrainingCommand, cache_option, overrides_argument, runs_option

if TYPE_CHECKING:
    from rich.console import Console


@click.command(
    cls=TrainingCommand, kept="what was saved is kept", stopped="the same command goes on"
)
@click.argument("experiment", required=False)
@overrides_argument
@click.option("--seeds", type=click.IntRange(min=1), help="Train with seeds 0 to N - 1.")
@click.option("--new", is_flag=True, help="Train again although this run exists.")
@cache_option
@runs_option
@click.option("--list", "list_", is_flag=True, help="List the experiments and stop.")
@click.option("--json", "as_json", is_flag=True, help="With --list: as one JSON object.")
@click.option("--markdown", is_flag=True, help="With --list: as a page.")
@click.option("--show", is_flag=True, help="Print EXPERIMENT with all that it extends, and stop.")
@click.option("--check", is_flag=True, help="Only say what is wrong with EXPERIMENT and KEYs.")
def command(
    experiment: str | None,
    overrides: tuple[str, ...],
    seeds: int | None,
    new: bool,
    cache: Path,
    runs: Path,
    list_: bool,
    as_json: bool,
    markdown: bool,
    show: bool,
    check: bool,
) -> None:
    """Train EXPERIMENT (a name from --list, or a TOML file) on the rows of a cache.

    KEY=VALUE sets a key of the experiment, for example train.epochs=20 or
    features.dataset=shapes.
    """
    if (as_json or markdown) and not list_:
        raise click.UsageError("--json and --markdown go with --list")
    if list_:
        list_experiments(as_json, markdown)
    elif experiment is None:
        raise click.UsageError("name an experiment; --list shows them")
    elif check:
        check_experiment(experiment, overrides, cache, runs)
    elif show:
        from train.config.files import load_experiment
        from train.config.files import show as as_toml

        click.echo(as_toml(load_experiment(experiment, list(overrides))), nl=False)
    else:
        train_seeds(experiment, overrides, seeds=seeds, new=new, cache=cache, runs=runs)


def list_experiments(as_json: bool, markdown: bool) -> None:
    """The experiments: for people with what they are, as JSON with all that documents them."""
    from train.config.catalogue import as_lines, as_markdown, catalogue, read_figures

    entries = catalogue()
    if as_json:
        click.echo(json.dumps(entries))
    elif markdown:
        click.echo(as_markdown(entries, read_figures()), nl=False)
    else:
        click.echo("\n".join(as_lines(entries)))


def check_experiment(name: str, overrides: tuple[str, ...], cache: Path, runs: Path) -> None:
    """Raise what is wrong with an experiment. What was trained to its end is right."""
    from train.runs.remembered import Remembered

    if Remembered(name, overrides, cache, runs).finished() is None:
        from train.config.files import load_experiment

        load_experiment(name, list(overrides))


def train_seeds(
    name: str,
    overrides: tuple[str, ...],
    *,
    seeds: int | None,
    new: bool,
    cache: Path,
    runs: Path,
) -> None:
    """Train one experiment, once per seed, and print its results."""
    from rich.console import Console

    from train.errors import ConfigError
    from train.evaluation.result import headline_split, print_result
    from train.loop.layout import RESULT
    from train.loop.progress import say
    from vqa_cache.system.signals import StopSignal

    if seeds and any(override.partition("=")[0] == "seed" for override in overrides):
        raise ConfigError(["seed is set twice: by --seeds and by seed=...; leave one out"])
    console, stopping = Console(), StopSignal()
    variants = [()] if seeds is None else [(f"seed={seed}",) for seed in range(seeds)]
    paths, headlines = [], []
    for variant in variants:
        path = train_once(
            name, (*overrides, *variant), cache, runs, console, new=new, stopping=stopping
        )
        result = json.loads((path / RESULT).read_text(encoding="utf-8"))
        print_result(result, console)
        tell_curves(path, result, console)
        split = headline_split(result)
        paths.append(path)
        headlines.append(result["metrics"][split]["accuracy"])
    if seeds and seeds > 1:
        mean, deviation = statistics.mean(headlines), statistics.stdev(headlines)
        say(console, f"{split} accuracy, {seeds} seeds: {mean:.4f} ± {deviation:.4f} (mean ± sd)")
    for path in paths:
        say(console, f"run: {path}")


def tell_curves(run: Path, result: Mapping[str, Any], console: Console) -> None:
    """Leave a run's accuracy by epoch on the screen, and a picture of it in its folder."""
    from train.loop.layout import METRICS
    from train.loop.progress import say
    from train.runs.curves import keep_picture, read_curves, told

    curves = read_curves(run / METRICS)
    for line in told(curves, result["best"]["split"]):
        say(console, line)
    try:
        keep_picture(run, result, curves)
    except OSError as error:  # the run itself is whole
        say(console, f"note: no picture of the curves: {error.strerror or error}")


def train_once(
    name: str,
    overrides: tuple[str, ...],
    cache: Path,
    runs: Path,
    console: Console,
    *,
    new: bool,
    stopping: Callable[[], bool],
) -> Path:
    """The folder of the finished run: at once where this very command has led to it before."""
    from train.loop.progress import say
    from train.runs.remembered import Remembered

    remembered = Remembered(name, overrides, cache, runs)
    if not new and (known := remembered.finished()):
        say(console, f"{known.name}: already finished; --new trains it again")
        return known
    from train.config.files import load_experiment
    from train.trainer import train

    experiment = load_experiment(name, list(overrides))
    path = train(experiment, cache=cache, runs=runs, console=console, new=new, stopping=stopping)
    if not new:  # which leads to another run each time
        remembered.keep(path)
    return path


if __name__ == "__main__":
    command()
