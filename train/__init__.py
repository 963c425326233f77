"""Stage 2: train small heads over the rows of a cache. `trainer.py` is the main path.

    import train
    run = train.load("runs/cosine_answers-0123456789ab")
    run.config, run.result
    run.predict("kitchen.jpg", "what is on the table?")

Nothing heavy is imported here: torch and the cache are imported where they are needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.predict.predictor import TrainedRun

__all__ = ["load"]


def load(path: str | Path) -> TrainedRun:
    """A finished run: `.config` (as resolved), `.result` (of `result.json`), and `.predict`, which
    answers questions about new images.

    Raises train.errors.TrainError when the folder holds no finished run.
    """
    from train.predict.predictor import load_trained

    return load_trained(Path(path))
