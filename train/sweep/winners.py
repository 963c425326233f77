"""The best trials of a sweep, trained again alone: the best of many is partly lucky."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

from train.errors import DivergedError
from train.loop.progress import say
from train.loop.training_loop import Watch
from train.runs.folder import load_run
from train.sweep.record import Row
from train.sweep.request import Request, Trial
from train.sweep.space import values_of
from train.trainer import train

WINNER_SEEDS = 3


def ranked(rows: Sequence[Row], name: str) -> list[Row]:
    """Trials of an experiment that trained to the end, the best first."""
    own = [row for row in rows if row["experiment"] == name and row["status"] == "finished"]
    return sorted(own, key=lambda row: (-row["value"], row["cross_entropy"] or 0.0, row["trial"]))


def train_winners(
    request: Request,
    trials: Sequence[Trial],
    rows: Sequence[Row],
    *,
    cache: Path,
    runs: Path,
    watch: Watch,
) -> list[dict[str, Any]]:
    """The best trials of each experiment as ordinary runs without baselines, best mean first.

    The best of many trials is partly lucky: these runs, with seeds of their own, are not.
    """
    by_number = {trial.number: trial for trial in trials}
    found = []
    for name in request.space.experiments:
        seeds = fresh_seeds(trial for trial in trials if trial.experiment == name)
        for row in ranked(rows, name)[: request.winners]:
            say(watch.console, f"{name}, trial {row['trial']} alone with seeds {seeds}")
            trial = by_number[row["trial"]]
            value = row["value"]
            found.append(
                train_alone(request, trial, value, seeds, cache=cache, runs=runs, watch=watch)
            )
    return sorted(found, key=lambda winner: (-(winner["mean"] or 0.0), winner["trial"]))


def fresh_seeds(trials: Iterable[Trial]) -> tuple[int, ...]:
    """The lowest seeds that none of these trials had: a trial was chosen because its seed was
    lucky, so a run with that seed would be as lucky."""
    had = {trial.config.seed for trial in trials}
    return tuple(islice((seed for seed in count() if seed not in had), WINNER_SEEDS))


def train_alone(
    request: Request,
    trial: Trial,
    value: float,
    seeds: Sequence[int],
    *,
    cache: Path,
    runs: Path,
    watch: Watch,
) -> dict[str, Any]:
    """One winner: its runs, their accuracies on the selection part, mean and deviation; without
    them, and with the reason, where a run diverged."""
    params = {key: text for key, text in trial.params.items() if key != "seed"}
    paths, values = [], []
    reason = None
    for seed in seeds:
        more = (f"seed={seed}", "baselines=off")
        experiment = request.space.experiment(trial.experiment, params, *more)
        try:
            path = train(
                experiment,
                cache=cache,
                runs=runs,
                console=watch.console,
                stopping=watch.stopping,
            )
        except DivergedError as error:
            reason = f"seed {seed}: {error}"
            break
        result = load_run(path).result
        paths.append(str(path))
        values.append(result["metrics"][result["best"]["split"]]["accuracy"])
    return {
        "trial": trial.number,
        "experiment": trial.experiment,
        "params": values_of(params),
        "sweep_value": value,
        "mean": None if reason else statistics.mean(values),
        "deviation": None if reason else statistics.stdev(values),
        "values": values,
        "runs": paths,
        "reason": reason,
    }
