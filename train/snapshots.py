"""Weights kept during a run: every so many epochs, the newest ones and the best ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from train.checkpoint import save_checkpoint
from train.config import Training
from train.fit import Score
from train.training_data import TrainingData
from vqa_cache.durable import remove


def save_model(
    folder: Path, model: nn.Module, data: TrainingData, *, epoch: int, extra: Mapping[str, Any]
) -> None:
    """Write a checkpoint with all that a prediction needs besides the encoders."""
    tensors: dict[str, torch.Tensor] = dict(model.state_dict())
    for modality, table in data.tables.items():
        for name, statistic in table.normaliser.tensors().items():
            tensors[f"normalise.{modality}.{name}"] = statistic
    description = {
        **extra,
        "epoch": epoch,
        "inputs": {
            modality: {"width": table.width, "normalise": table.normaliser.kind}
            for modality, table in data.tables.items()
        },
        "answers": list(data.vocabulary.answers),
        "answers_normalised": data.vocabulary.normalised,
    }
    save_checkpoint(folder, tensors, description)


class Snapshots:
    """Keeps `checkpoints/epoch-<number>` every `snapshot_every` epochs."""

    def __init__(
        self, folder: Path, settings: Training, data: TrainingData, extra: Mapping[str, Any]
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.data = data
        self.extra = extra
        self._scores: dict[int, Score] = {}

    def epoch(self, epoch: int, model: nn.Module, score: Score) -> None:
        """An epoch (from 1) was evaluated."""
        every = self.settings.snapshot_every
        if not every or epoch % every:
            return
        save_model(self._path(epoch), model, self.data, epoch=epoch, extra=self.extra)
        self._scores[epoch] = score
        for old in set(self._scores) - self._kept():
            remove(self._path(old))
            del self._scores[old]

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:04d}"

    def _kept(self) -> set[int]:
        newest = sorted(self._scores)[-self.settings.keep_last :] if self.settings.keep_last else []
        ranked = sorted(
            self._scores,
            key=lambda e: (-self._scores[e].accuracy, self._scores[e].cross_entropy, e),
        )
        return {*newest, *ranked[: self.settings.keep_best]}
