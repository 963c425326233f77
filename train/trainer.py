"""The main path of stage 2:

cache -> resident tables -> rows of a shuffled batch -> fusion -> head -> loss -> metrics -> result
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

import vqa_cache
from train.baselines import run_baselines
from train.config import Experiment
from train.errors import TrainError
from train.evaluate import measure, predictions, run_model
from train.fit import Fitted, Listener, Score, fit
from train.progress import say
from train.result import compose
from train.runs.folder import RunFolder, choose_folder, unfinished_with_other_code
from train.runs.layout import CHECKPOINTS, FAILURE
from train.runs.registry import Registry
from train.snapshots import Snapshots, save_model
from train.training_data import TrainingData, load_data
from vqa_cache.durable import remove, write_file


def train(
    experiment: Experiment, *, cache: Path, runs: Path, console: Console, new: bool = False
) -> Path:
    """Train an experiment and return its run's folder; a finished run is not trained again.

    Args:
        cache: the cache's folder.
        runs: the folder of all runs.
        new: begin another run although this one exists.

    Raises:
        TrainError, vqa_cache.CacheError: with one clear line each.
    """
    started = time.perf_counter()
    data = load_data(experiment, vqa_cache.open(cache))
    load_seconds = time.perf_counter() - started

    folder = choose_folder(experiment, data.digest, runs, new=new)
    if folder.finished:
        say(console, f"{folder.path.name}: already finished; --new trains it again")
        return folder.path
    tell(experiment, data, folder, console=console)
    remove(folder.path / FAILURE)
    folder.begin(experiment)
    registry = Registry.open(runs)
    registry.index_run(folder.path)
    try:
        fitted = fit_and_keep(experiment, data, folder, registry, console=console)
        metrics = evaluate_parts(experiment, data, fitted, folder)
        baselines = run_baselines(experiment.config, data, runs=runs, console=console)
        result = compose(
            experiment,
            data,
            fitted,
            run_id=folder.path.name,
            metrics=metrics,
            baselines=baselines,
            load_seconds=load_seconds,
        )
        folder.finish(result)
    except TrainError as error:
        write_file(folder.path / FAILURE, f"{error}\n".encode())
        raise
    finally:
        folder.close()
        registry.index_run(folder.path)
        registry.close()
    return folder.path


def tell(
    experiment: Experiment, data: TrainingData, folder: RunFolder, *, console: Console
) -> None:
    """Say what will be trained on, and about earlier attempts."""
    sizes = ", ".join(f"{name} {len(part):,}" for name, part in data.parts.items())
    held = " (held out: a tenth of the images of train)" if data.held_out else ""
    say(console, f"{folder.path.name}: {sizes} examples; {len(data.vocabulary):,} answers")
    say(console, f"epochs are selected on {data.selection}{held}")
    for note in data.notes:
        say(console, note)
    if folder.begun:
        say(console, f"{folder.path} is unfinished: training starts again from the beginning")
    for other in unfinished_with_other_code(experiment, folder):
        say(console, f"{other} is unfinished too, but other code began it: left alone")


def fit_and_keep(
    experiment: Experiment,
    data: TrainingData,
    folder: RunFolder,
    registry: Registry,
    *,
    console: Console,
) -> Fitted:
    """Train the model; its log, snapshots and best weights go into the run's folder."""
    config = experiment.config
    features = config.features.model_dump(exclude_none=True)
    extra = {"experiment": experiment.name, "features": features}
    checkpoints = folder.path / CHECKPOINTS
    snapshots = Snapshots(checkpoints, config.train, data, extra)

    def evaluated(epoch: int, model: nn.Module, score: Score) -> None:
        snapshots.epoch(epoch, model, score)
        registry.index_run(folder.path)

    fitted = fit(
        config,
        data,
        modalities=list(data.tables),
        what=experiment.name,
        console=console,
        listener=Listener(row=folder.row, epoch=evaluated),
    )
    save_model(checkpoints / "best", fitted.model, data, epoch=fitted.epoch, extra=extra)
    return fitted


def evaluate_parts(
    experiment: Experiment, data: TrainingData, fitted: Fitted, folder: RunFolder
) -> dict[str, Any]:
    """`metrics` of the result: every part evaluated once, with the selected weights. Predictions
    of every part but train go into the run's folder."""
    metrics = {}
    for name, part in data.parts.items():
        outputs = run_model(fitted.model, part, data.tables, experiment.config.train.precision)
        metrics[name] = measure(part, outputs, data.vocabulary)
        if name != "train":
            folder.write_predictions(name, predictions(part, outputs, data.vocabulary))
    return metrics
