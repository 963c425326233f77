"""Weights from a file of the user's: reading it, and giving them to a model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from precompute.errors import EncoderError
from vqa_cache.spec import EncoderSpec

# what training programs put a state dictionary under, beside epochs and optimisers
_CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
    "network",
    "state_dict_ema",
    "model_ema",
)
_COUNTER = "num_batches_tracked"  # of batch normalisation, which reads it in training alone


@contextmanager
def clear_weight_errors(spec: EncoderSpec, path: str | Path) -> Iterator[None]:
    """Around code that reads a file of weights: whatever is raised becomes an EncoderError."""
    try:
        yield
    except EncoderError:
        raise
    except FileNotFoundError:
        raise EncoderError(f"encoder {spec}: weights file {path} is missing") from None
    except UnpicklingError as error:
        raise EncoderError(
            f"encoder {spec}: weights file {path} is no file of tensors alone; "
            "save the model's state_dict() as .safetensors or .pth"
        ) from error
    except Exception as error:  # torch and safetensors each raise their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EncoderError(f"encoder {spec}: weights file {path} does not fit: {reason}") from error


def read_weights(spec: EncoderSpec, path: Path, names: Collection[str]) -> dict[str, torch.Tensor]:
    """The tensors of a `.safetensors` or torch file, by the model's names: taken out of the
    dictionary of a training program, and without the prefix that a wrapper (`module.`) gave all.

    Args:
        names: the model's own.

    Raises:
        EncoderError: the file is missing, no file of tensors alone, or holds none by name.
    """
    with clear_weight_errors(spec, path):
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        while inner := _contained(content):
            content = inner
        tensors = {
            str(name): value
            for name, value in (content.items() if isinstance(content, Mapping) else ())
            if isinstance(value, torch.Tensor)
        }
        if not tensors:
            raise EncoderError(
                f"encoder {spec}: weights file {path} holds no tensors by name, itself or under "
                f"{', '.join(_CONTAINERS)}; save the model's state_dict()"
            )
    return _without_prefix(tensors, names)


def _contained(content: Any) -> Any:
    """The first dictionary that lies under one of the known names; None where none does."""
    if not isinstance(content, Mapping):
        return None
    return next(
        (content[name] for name in _CONTAINERS if isinstance(content.get(name), Mapping)), None
    )


def _without_prefix(
    tensors: dict[str, torch.Tensor], names: Collection[str]
) -> dict[str, torch.Tensor]:
    known = set(names)
    while not known & tensors.keys():
        first = {name.partition(".")[0] for name in tensors}
        if len(first) > 1 or not all("." in name for name in tensors):
            break
        tensors = {name.partition(".")[2]: value for name, value in tensors.items()}
    return tensors


def give_weights(
    spec: EncoderSpec, model: torch.nn.Module, path: Path, spared: Collection[str]
) -> tuple[list[str], list[str]]:
    """Load a file into a model, all but what the tap does not use.

    Args:
        spared: modules (`fc`) that the file may lack, or have in another size.

    Returns:
        Names of the model's weights that it did not get, and of the file's that were left out.

    Raises:
        EncoderError: as `read_weights`, or another weight is missing, left over or of another size.
    """
    own = model.state_dict()
    found = read_weights(spec, path, own)
    fits = {name for name in own.keys() & found.keys() if own[name].shape == found[name].shape}
    lacks = [name for name in own if name not in fits and not name.endswith(_COUNTER)]
    left = [name for name in found if name not in fits]
    wrong = [name for name in (*lacks, *left) if not _inside(name, spared)]
    if wrong:
        shapes = [
            f"{list(weights[wrong[0]].shape)} in the {place}"
            for place, weights in (("file", found), ("model", own))
            if wrong[0] in weights
        ]
        told = " and ".join(shapes) if len(shapes) == 2 else f"{shapes[0]} alone"
        raise EncoderError(
            f"encoder {spec}: weights file {path} does not fit: {wrong[0]} is {told}; "
            f"{len(fits):,} of the model's {len(own):,} entries fit"
        )
    with clear_weight_errors(spec, path):
        model.load_state_dict(own | {name: found[name] for name in fits})
    return lacks, left


def _inside(name: str, modules: Collection[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)
