"""What image and text models of transformers have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from precompute.encoders.base import Encoder
from precompute.errors import EncoderError
from vqa_cache.spec import EncoderSpec, folder_name

# where a configuration was found and who wrote it says nothing about what the model computes
_NOT_ARCHITECTURE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype",
                     "architectures", "id2label", "label2id")  # fmt: skip

POOLED = ("pooler", "projected")  # taps of one vector that the model itself pools
_POOLERS = re.compile(r"(.+\.)?(pooler|head)\.")


@dataclass(frozen=True)
class Loaded:
    """A model and where it came from.

    Attributes:
        source: a hub's name or a folder; "" for a random model.
        revision: the hub's commit; None for a local or a random model.
        missing: the weights that the checkpoint lacks.
        tokenizer: of a text model, once an encoder has read it.
    """

    model: torch.nn.Module
    source: str = ""
    revision: str | None = None
    missing: Sequence[str] = ()
    tokenizer: Any = None


def check_missing(spec: EncoderSpec, missing: Sequence[str]) -> None:
    """Raise EncoderError where a tap's rows depend on weights that the checkpoint lacks."""
    used = [name for name in missing if _is_used(name, spec)]
    if used:
        raise EncoderError(
            f"encoder {spec}: the checkpoint lacks weights that tap {spec.tap!r} uses "
            f"({used[0]}, {len(used)} in all); they would be random. Choose another tap"
        )


def _is_used(weight: str, spec: EncoderSpec) -> bool:
    """Whether a row depends on a weight; poolers (SigLIP's is its head) serve their taps alone."""
    tap = str(spec.tap)
    if not _POOLERS.match(weight):
        return True
    return tap in ("pooler", "projected") or _POOLERS.match(f"{tap}.") is not None


def resolved_config(config: Any) -> dict[str, Any]:
    """What a configuration of transformers says about what the model computes."""
    resolved = json.loads(json.dumps(config.to_dict(), default=str))
    return {name: resolved[name] for name in resolved if name not in _NOT_ARCHITECTURE}


class TransformersEncoder(Encoder):
    """An encoder of transformers."""

    library = "transformers"

    def __init__(self, spec: EncoderSpec, loaded: Loaded) -> None:
        super().__init__(spec, loaded.model, loaded.missing)
        self._loaded = loaded
        self.label = folder_name(spec.model) if spec.family == "dir" else spec.model
        self._revision = loaded.revision

    def beside(self, spec: EncoderSpec) -> Encoder | None:
        if (spec.tap == "projected") != (self.spec.tap == "projected"):  # a module around the tower
            return None
        check_missing(spec, self._loaded.missing)
        return type(self)(spec, self._loaded)

    @property
    def revision(self) -> str | None:
        return self._revision

    def architecture(self) -> dict[str, Any]:
        return resolved_config(self.module.config)

    def _pooler_output(self, output: Any) -> torch.Tensor:
        """float32 [batch, width]. Raises EncoderError where the model has no pooler."""
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            raise EncoderError(f"encoder {self.spec}: the model has no pooler; choose another tap")
        rows: torch.Tensor = pooled.float().flatten(1)
        return rows
