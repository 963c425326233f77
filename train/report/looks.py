"""Where a run's attention looked when it answered the samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

import vqa_cache
from train.inputs.tables import find_tables
from train.loop.checkpoint import read_description
from train.loop.layout import BEST, CHECKPOINTS
from train.predict.calibration import cached_rows
from train.predict.model import TrainedModel
from train.predict.sources import from_cache
from train.report.judged import Judged
from train.runs.folder import load_run


def looks(run: Path, judged: Judged, places: Sequence[int], cache: Path) -> torch.Tensor | None:
    """Weights over the picture of some judged questions, float32 [n, h, w]; None of a run without
    an attention over a grid.

    Raises:
        TrainError, CacheError: the model cannot be built from this cache.
    """
    loaded = load_run(run)
    if loaded.config.attention is None or not places:
        return None
    checkpoint = run / CHECKPOINTS / BEST
    sources = from_cache(loaded.config, read_description(checkpoint), cache)
    model = TrainedModel(loaded.config, checkpoint, sources, loaded.result["precision"])
    tables = find_tables(vqa_cache.open(cache), loaded.config.features, "python -m precompute")
    return model.looks(cached_rows(judged.examples, judged.rows[list(places)], tables, model))
