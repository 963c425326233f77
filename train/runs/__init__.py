"""Run folders, which are the truth about runs, and what is built over them.

    import train.runs
    table = train.runs.open("runs").to_pandas()    # one row a run

Nothing heavy is imported here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.runs.registry import Registry

__all__ = ["open"]


def open(path: str | Path = "runs") -> Registry:  # noqa: A001 - read as train.runs.open
    """The registry of a runs folder, in step with the folders in it.

    Raises train.errors.TrainError where there is no such folder.
    """
    from train.runs.registry import open_registry

    return open_registry(Path(path))
