"""The image or the text half of a model of transformers that has both (CLIP, SigLIP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from precompute.errors import EncoderError
from vqa_cache.spec import EncoderSpec, Modality

_PARTS = {"image": ("vision_model", "visual_projection"), "text": ("text_model", "text_projection")}


class ProjectedTower(torch.nn.Module):
    """A tower whose pooled output goes through the model's projection."""

    def __init__(self, tower: torch.nn.Module, projection: torch.nn.Module) -> None:
        super().__init__()
        self.tower, self.projection = tower, projection
        self.config = tower.config

    def forward(self, **inputs: torch.Tensor) -> Any:
        """The tower's output, its `pooler_output` projected."""
        output = self.tower(**inputs)
        output.pooler_output = self.projection(output.pooler_output)
        return output


def take_tower(
    spec: EncoderSpec, modality: Modality, model: torch.nn.Module, missing: Sequence[str]
) -> tuple[torch.nn.Module, list[str]]:
    """The half of a model that a modality needs, and its missing weights by their names in it; a
    model of one modality as it is.

    Raises:
        EncoderError: tap `projected` of a model that has no projection.
    """
    part, projection = _PARTS[modality]
    tower, projects = getattr(model, part, None), getattr(model, projection, None)
    if spec.tap == "projected":
        if tower is None or projects is None:
            raise EncoderError(
                f"encoder {spec}: the model has no projection; name tap=pooler, mean or a block"
            )
        names = {part: "tower", projection: "projection"}
        return ProjectedTower(tower, projects), _renamed(missing, names)
    if tower is None:
        return model, list(missing)
    return tower, _renamed(missing, {part: ""})


def _renamed(weights: Sequence[str], parts: dict[str, str]) -> list[str]:
    """Names below these parts, each part renamed."""
    found = []
    for name in weights:
        part, _, rest = name.partition(".")
        if part in parts:
            found.append(f"{parts[part]}.{rest}" if parts[part] else rest)
    return found
