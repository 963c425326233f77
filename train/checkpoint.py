"""Weights of a run: safetensors beside JSON. No pickle is written or read.

    checkpoints/best/model.safetensors    weights and buffers; `normalise.<modality>.<statistic>`
    checkpoints/best/model.json           epoch, vocabulary, shapes, how inputs are normalised

A checkpoint is published whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from train.errors import TrainError
from train.runs.layout import DESCRIPTION
from vqa_cache.durable import publish, removed_on_error, temporary_path

WEIGHTS = "model.safetensors"


def save_checkpoint(
    folder: Path, tensors: Mapping[str, torch.Tensor], description: Mapping[str, Any]
) -> None:
    """Write a checkpoint's folder; one of that name is replaced.

    Args:
        tensors: name -> tensor; stored contiguous, in the order of their names.
        description: JSON values; `shapes` is added.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(folder)
    with removed_on_error(temporary):
        temporary.mkdir()
        stored = {name: tensors[name].detach().clone().contiguous() for name in sorted(tensors)}
        save_file(stored, temporary / WEIGHTS)
        shapes = {name: list(tensor.shape) for name, tensor in stored.items()}
        text = json.dumps({**description, "shapes": shapes}, indent=1, ensure_ascii=False)
        (temporary / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        publish(temporary, folder)


def load_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and description of a checkpoint. Raises TrainError where they do not agree."""
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise TrainError(f"checkpoint {folder}: {error.filename or WEIGHTS} is missing") from None
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if found != description["shapes"]:
        differing = _differing(found, description["shapes"])
        raise TrainError(
            f"checkpoint {folder}: shapes differ from {DESCRIPTION} in {', '.join(differing)}"
        )
    return tensors, description


def _differing(found: dict[str, list[int]], expected: dict[str, list[int]]) -> list[str]:
    names = sorted({*found, *expected})
    return [
        f"{name} (found {found.get(name)}, expected {expected.get(name)})"
        for name in names
        if found.get(name) != expected.get(name)
    ]
