"""What a run computes: weights, metrics of every part, baselines.

A run's id covers the text of this module and of all that it can execute (identity.py). What only
keeps, shows or counts results stays out of here: a change of it leaves runs as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from train.baselines import run_baselines
from train.config import Experiment
from train.evaluate import measure, predictions, run_model
from train.fit import Fitted, Watch, fit
from train.training_data import TrainingData

WritePredictions = Callable[[str, list[dict[str, int | str]]], None]


class Computed(NamedTuple):
    """The trained model, and `metrics` and `baselines` of the result."""

    fitted: Fitted
    metrics: dict[str, Any]
    baselines: dict[str, Any]


def compute_run(
    experiment: Experiment,
    data: TrainingData,
    *,
    folder: Path,
    write_predictions: WritePredictions,
    watch: Watch,
) -> Computed:
    """Train the model, evaluate it, train its baselines; or go on with that.

    Args:
        folder: the run's; the baselines are beside it.
        write_predictions: given the name and the rows of each part but train.

    Raises:
        TrainError, Stopped: as `fit` does.
    """
    fitted = fit(
        experiment.config,
        data,
        modalities=data.tables,
        what=experiment.name,
        folder=folder,
        watch=watch,
    )
    metrics = evaluate_parts(data, fitted, write_predictions, stopping=watch.stopping)
    others = Watch(watch.console, stopping=watch.stopping)
    baselines = run_baselines(experiment.config, data, runs=folder.parent, watch=others)
    fitted.snapshots.finish(fitted.score)
    return Computed(fitted, metrics, baselines)


def evaluate_parts(
    data: TrainingData,
    fitted: Fitted,
    write_predictions: WritePredictions,
    *,
    stopping: Callable[[], bool],
) -> dict[str, Any]:
    """`metrics` of the result: every part evaluated once, with the selected weights."""
    metrics = {}
    for name, part in data.parts.items():
        outputs = run_model(fitted.model, part, data.tables, data.precision, stopping=stopping)
        metrics[name] = measure(part, outputs, data.vocabulary)
        if name != "train":
            write_predictions(name, predictions(part, outputs, data.vocabulary))
    return metrics
