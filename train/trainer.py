"""The main path of stage 2:

cache -> resident tables -> rows of a shuffled batch -> fusion -> head -> loss -> metrics -> result
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

import vqa_cache
from train.components.user_code import users_error
from train.config.schema import Experiment
from train.engine.data import hold_joined
from train.engine.outputs import Outputs, Wanted, run_model
from train.errors import TrainError
from train.evaluation.baselines import run_baselines
from train.evaluation.calibrate import fit_temperature
from train.evaluation.controls import run_controls
from train.evaluation.evaluate import measure, predictions
from train.evaluation.result import compose
from train.inputs.load import TrainingData, join_data
from train.inputs.order import along
from train.inputs.soft_targets import annotators_of
from train.loop.fit import Fitted, fit
from train.loop.lock import locked
from train.loop.progress import say
from train.loop.tensorboard import Events
from train.loop.training_loop import Watch
from train.runs.folder import RunFolder, choose_folder, unfinished_with_other_code
from train.runs.registry import Registry
from vqa_cache.system.device import CPU, device_name


def train(
    experiment: Experiment,
    *,
    cache: Path,
    runs: Path,
    console: Console,
    new: bool = False,
    stopping: Callable[[], bool] = lambda: False,
) -> Path:
    """Train an experiment and return its run's folder. A finished run is not trained again, an
    unfinished one goes on.

    Args:
        cache: the cache's folder.
        runs: the folder of all runs.
        new: begin another run although this one exists.
        stopping: asked between steps; true saves and raises Stopped.

    Raises:
        TrainError, vqa_cache.CacheError: with one clear line each.
        Stopped: the run is kept, the same call goes on.
    """
    started = time.perf_counter()
    joined = join_data(experiment, vqa_cache.open(cache))
    folder = choose_folder(experiment, joined.digest, runs, new=new)
    if folder.finished:
        say(console, f"{folder.path.name}: already finished; --new trains it again")
        return folder.path
    data = hold_joined(joined, folder.precision)  # what it was begun in
    load_seconds = time.perf_counter() - started
    with (
        locked(folder.path),
        Events(folder.path) as events,
        closing(Registry.open(runs)) as registry,
    ):
        if folder.finished:  # by another process, between the look above and the lock
            return folder.path
        tell(experiment, data, folder, console=console)
        folder.begin(experiment, data.precision)
        index = partial(registry.index_run, folder.path)
        index()
        watch = Watch(console, stopping=stopping, row=events.row, evaluated=index)
        try:
            result = train_and_measure(experiment, data, folder, watch)
            result["throughput"]["load_seconds"] = load_seconds
            accuracies = {name: one["accuracy"] for name, one in result["metrics"].items()}
            events.compare(experiment.config.identity(), accuracies)
            folder.finish(result)
        except Exception as error:
            told = users_error(error) or error
            if isinstance(told, TrainError):
                folder.fail(told)
            if told is error:
                raise
            raise told from error
        finally:
            index()
    return folder.path


def tables_told(data: TrainingData) -> str:
    """Where the tables are, and whether their size decides how samples are shuffled."""
    led = along(data.parts["train"], data.tables)
    told, mapped, apart = [], [], []
    for modality, table in data.tables.items():
        if led is not None and table is led.table:
            ahead = "in memory" if table.resident else "read ahead from files"
            told.append(f"{modality} rows {ahead}, shuffled in {led.blocks.windows} windows")
        elif not table.resident:
            mapped.append(modality)
        elif table.home != table.device:
            apart.append(modality)
    if mapped:
        where = "rows mapped from files, the page cache holds what it can"
        told.append(f"{' and '.join(mapped)} {where}")
    if apart:
        where = "rows in host memory, copied to the GPU batch by batch"
        told.append(f"{' and '.join(apart)} {where}")
    in_memory = "tables in memory" if data.device == CPU else "tables in GPU memory"
    return "; ".join(told) or in_memory


def train_and_measure(
    experiment: Experiment, data: TrainingData, folder: RunFolder, watch: Watch
) -> dict[str, Any]:
    """Train the model and its baselines; the run's result."""
    fitted = fit(
        experiment.config,
        data,
        modalities=data.tables,
        what=experiment.name,
        folder=folder.path,
        watch=watch,
    )
    temperature = experiment.config.temperature
    calibration = fit_temperature(
        fitted.model, data, temperature=temperature, stopping=watch.stopping
    )
    metrics, outputs = evaluate_parts(
        experiment, data, fitted, folder, watch, fitted_temperature=calibration.temperature
    )
    others = Watch(watch.console, stopping=watch.stopping)
    baselines = run_baselines(experiment.config, data, runs=folder.path.parent, watch=others)
    began = time.perf_counter()
    controls = run_controls(experiment.config, data, fitted.model, outputs, watch.stopping)
    controls_seconds = time.perf_counter() - began
    reasons = {**baselines["reasons"], **controls["reasons"]}
    fitted.snapshots.finish(fitted.score)
    return compose(
        experiment,
        data,
        fitted,
        run_id=folder.path.name,
        metrics=metrics,
        baselines={**baselines, **controls, "reasons": reasons},
        calibration=calibration,
        controls_seconds=controls_seconds,
    )


def tell(
    experiment: Experiment, data: TrainingData, folder: RunFolder, *, console: Console
) -> None:
    """Say what will be trained on, and about earlier attempts."""
    sizes = ", ".join(f"{name} {len(part):,}" for name, part in data.parts.items())
    held = " (held out: a tenth of the images of train)" if data.held_out else ""
    say(console, f"{folder.path.name}: {sizes} examples; {len(data.vocabulary):,} answers")
    name = device_name(data.device)
    say(console, f"computed on {name} in {data.precision}, {tables_told(data)}")
    say(console, f"epochs are selected on {data.selection}{held}")
    for note in (*experiment.about.lines(), *data.notes):
        say(console, note)
    for line in unfinished_with_other_code(experiment, folder):
        say(console, line)


def evaluate_parts(
    experiment: Experiment,
    data: TrainingData,
    fitted: Fitted,
    folder: RunFolder,
    watch: Watch,
    *,
    fitted_temperature: float,
) -> tuple[dict[str, Any], dict[str, Outputs]]:
    """`metrics` of the result, and what the model said: every part evaluated once, with the
    selected weights. Predictions of every part but train go into the run's folder. A part with
    outputs that are not finite has no figures, and one line says so."""
    metrics, said = {}, {}
    for name, part in data.parts.items():
        outputs = run_model(
            fitted.model,
            part,
            data.tables,
            data.precision,
            temperature=experiment.config.temperature,
            wanted=Wanted(
                top=name != "train",
                annotators=annotators_of(part, data.vocabulary),
                fitted_temperature=fitted_temperature,
            ),
            stopping=watch.stopping,
        )
        metrics[name] = measure(
            part,
            outputs,
            data.vocabulary,
            zero_division=experiment.config.evaluation.zero_division,
            wordnet=experiment.config.evaluation.wordnet,
        )
        if not outputs.finite.all():
            why = metrics[name]["reasons"]["accuracy"]
            say(watch.console, f"{name}: no figures: {why}; look for large values in its rows")
        if name != "train":
            said[name] = outputs
            folder.write_predictions(name, predictions(part, outputs, data.vocabulary))
    return metrics, said
