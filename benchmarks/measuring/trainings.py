"""Stage 2 as it is timed: a training that stands at its first step and says nothing."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from train.config.schema import Config
from train.inputs.load import TrainingData
from train.loop.fit import Training
from train.loop.training_loop import Watch


def begin_training(config: Config, data: TrainingData, folder: Path) -> Training:
    """A training of all modalities, ready for its first step; its `log` is to be closed.

    Args:
        folder: for what it saves.
    """
    training = Training(
        config, data, data.tables, what="", folder=folder, watch=Watch(Console(quiet=True))
    )
    training.restore()
    return training
