"""Stage 2: train small heads over the rows of a cache. `trainer.py` is the main path.

    import train
    run = train.load("runs/cosine_answers-0123456789ab")
    run.config, run.result

Nothing heavy is imported here: torch and the cache are imported where they are needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.runs.folder import Run

__all__ = ["load"]


def load(path: str | Path) -> Run:
    """A finished run: `.config` (as resolved) and `.result` (of `result.json`).

    Raises train.errors.TrainError when the folder holds no finished run.
    """
    from train.runs.folder import load_run

    return load_run(Path(path))
