"""`python -m train.sweep EXP [EXP ...] KEY=V1,V2 KEY=log:LO:HI ...`: a sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from train.command_line import TrainingCommand, cache_option, json_option, runs_option
from train.errors import ConfigError

if TYPE_CHECKING:
    from train.sweep.engine import Engine

TRIALS = 32  # where --trials is not given


@click.command(
    cls=TrainingCommand,
    kept="finished packs are kept",
    stopped="finished packs are kept; the same command goes on",
)
@click.argument("words", nargs=-1, required=True, metavar="EXP... KEY=V1,V2...")
@click.option("--trials", type=click.IntRange(min=1), help=f"Of each experiment; {TRIALS}.")
@click.option(
    "--sampler",
    type=click.Choice(["grid", "random", "tpe"]),
    help="By default grid where every key lists its values, otherwise tpe.",
)
@click.option(
    "--pruner",
    type=click.Choice(["none", "halving"]),
    default="none",
    help="halving stops the worse half of a pack after 1/8, 1/4 and 1/2 of the epochs.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0)
@click.option(
    "--lanes",
    type=click.IntRange(min=1),
    default=32,
    help="Trials that share a pass at most.",
)
@click.option(
    "--winners",
    type=click.IntRange(min=0),
    default=1,
    help="Best trials of each experiment that are trained again alone, with three seeds.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="ray trains whole packs on a cluster: a local one, or RAY_ADDRESS.",
)
@click.option(
    "--design",
    type=click.FloatRange(min=0, min_open=True, max=1),
    metavar="DIFFERENCE",
    help="Train nothing: how many questions and seeds tell such a difference in accuracy between "
    "finished runs of EXP, or of two.",
)
@click.option(
    "--seeds", type=click.IntRange(min=2), default=3, help="Of --design: planned for each side."
)
@click.option("--check", is_flag=True, help="Only say what is wrong with EXP and KEYs.")
@cache_option
@runs_option
@json_option
def command(
    words: tuple[str, ...],
    trials: int | None,
    sampler: str | None,
    pruner: str,
    seed: int,
    lanes: int,
    winners: int,
    engine: str,
    design: float | None,
    seeds: int,
    check: bool,
    cache: Path,
    runs: Path,
    as_json: bool,
) -> None:
    """Train many settings of experiments; those of one shape share a pass over the data.

    A KEY=VALUE without a comma or a range is set for every trial. The same command again goes on
    where it was stopped.
    """
    from rich.console import Console

    from train.loop.progress import say
    from train.loop.training_loop import Watch
    from train.sweep.report import print_sweep
    from train.sweep.request import Request
    from train.sweep.run import check_first_trials, sweep
    from train.sweep.space import parse_space
    from vqa_cache.system.signals import StopSignal

    if design is not None:
        show_design(words, design, seeds, cache=cache, runs=runs, as_json=as_json)
        return
    space = parse_space(words)
    chosen = choose_sampler(sampler, space.grid_size)
    request = Request(
        space=space,
        sampler=chosen,  # type: ignore[arg-type]
        pruner=pruner,  # type: ignore[arg-type]
        trials=choose_trials(trials, chosen, space.grid_size),
        seed=seed,
        lanes=lanes,
        winners=winners,
    )
    if check:
        check_first_trials(request)
        return
    console = Console(stderr=as_json)
    watch = Watch(console, stopping=StopSignal())
    result = sweep(request, cache=cache, runs=runs, watch=watch, engine=engine_of(engine))
    if as_json:
        click.echo(json.dumps(result))
        return
    print_sweep(result, console)
    say(console, f"sweep: {result['sweep']}")


def show_design(
    words: tuple[str, ...], difference: float, seeds: int, *, cache: Path, runs: Path, as_json: bool
) -> None:
    """Print what it takes to tell a difference."""
    from train.sweep.design import design, print_design

    found = design(words, difference, seeds, cache=cache, runs=runs)
    if as_json:
        click.echo(json.dumps(found))
    else:
        print_design(found)


def engine_of(name: str) -> Engine:
    """What trains packs."""
    if name == "ray":
        from train.sweep.engine_ray import run_packs_on_ray

        return run_packs_on_ray
    from train.sweep.engine import run_packs

    return run_packs


def choose_sampler(sampler: str | None, grid_size: int | None) -> str:
    """The sampler that is meant. Raises ConfigError for a grid over a range."""
    if sampler == "grid" and grid_size is None:
        raise ConfigError(
            ["--sampler grid: a range has no grid; list values (KEY=V1,V2), or use random or tpe"]
        )
    return sampler or ("tpe" if grid_size is None else "grid")


def choose_trials(trials: int | None, sampler: str, grid_size: int | None) -> int:
    """How many trials an experiment has. Raises ConfigError where that is less than a grid."""
    if sampler != "grid" or grid_size is None:
        return trials or TRIALS
    if trials is not None and trials < grid_size:
        raise ConfigError(
            [
                f"--trials {trials}: the grid has {grid_size} settings; raise --trials, list fewer "
                "values, or use --sampler random"
            ]
        )
    return grid_size


if __name__ == "__main__":
    command()
