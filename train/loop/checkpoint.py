"""Weights on disk: safetensors files beside a JSON description. No pickle is written or read.

    <checkpoint>/model.safetensors      weights and buffers; `normalise.<modality>.<statistic>`
    <checkpoint>/training.safetensors   only in a snapshot: the optimiser's state
    <checkpoint>/model.json             what they are, a digest of every file, its own digest

A checkpoint is published whole or not at all, and read only if every digest is right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from train.errors import TrainError
from train.loop.layout import DESCRIPTION
from vqa_cache.keys import json_digest
from vqa_cache.system.durable import Workspace, naming, publish

VERSION = 1
Tensors = dict[str, torch.Tensor]


class CheckpointError(TrainError):
    """A checkpoint is missing, damaged, or of a format that this program does not read."""


def save_checkpoint(
    folder: Path, tensors: Mapping[str, Mapping[str, torch.Tensor]], description: Mapping[str, Any]
) -> None:
    """Write a checkpoint's folder; one of that name is replaced.

    Args:
        tensors: file ("model", "training") -> name -> tensor.
        description: JSON values; `version`, `shapes`, `files` and `digest` are added.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with naming(folder), Workspace(folder) as temporary:
        temporary.mkdir()
        files = {}
        for file, named in tensors.items():
            path = temporary / f"{file}.safetensors"
            stored = {name: named[name].detach().contiguous() for name in sorted(named)}
            try:
                save_file(stored, path)
            except SafetensorError as error:  # a full disk, among others
                raise OSError(0, " ".join(str(error).split()), str(folder)) from None
            files[path.name] = _digest(path.read_bytes())
        shapes = {name: list(tensor.shape) for name, tensor in sorted(tensors["model"].items())}
        whole = {**description, "version": VERSION, "shapes": shapes, "files": files}
        text = json.dumps({**whole, "digest": json_digest(whole)}, indent=1, ensure_ascii=False)
        (temporary / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        publish(temporary, folder)


def load_checkpoint(folder: Path, file: str = "model") -> tuple[Tensors, dict[str, Any]]:
    """One file's tensors and the description. Raises CheckpointError, with the reason."""
    description = read_description(folder)
    name = f"{file}.safetensors"
    if name not in description["files"]:
        raise CheckpointError(f"checkpoint {folder}: {name} was not saved with it")
    return load(_verified(folder, name, description)), description


def verify_checkpoint(folder: Path) -> dict[str, Any]:
    """The description, after every file's digest was found right. Raises CheckpointError."""
    description = read_description(folder)
    for name in description["files"]:
        _verified(folder, name, description)
    return description


def read_description(folder: Path) -> dict[str, Any]:
    """`model.json`, checked. Raises CheckpointError."""
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {folder}: {DESCRIPTION} is missing") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"checkpoint {folder}: {DESCRIPTION} is not valid JSON") from None
    version = description.get("version") if isinstance(description, dict) else None
    if version != VERSION:
        raise CheckpointError(
            f"checkpoint {folder}: format version {version}, this program reads {VERSION}"
        )
    body = {key: value for key, value in description.items() if key != "digest"}
    if description.get("digest") != json_digest(body):
        raise CheckpointError(f"checkpoint {folder}: {DESCRIPTION} is damaged, its digest is wrong")
    return description


def _verified(folder: Path, name: str, description: Mapping[str, Any]) -> bytes:
    try:
        content = (folder / name).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {folder}: {name} is missing") from None
    if _digest(content) != description["files"][name]:
        raise CheckpointError(f"checkpoint {folder}: {name} is damaged, its digest is wrong")
    return content


def _digest(content: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(content)
