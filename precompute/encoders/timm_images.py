"""The `timm` family: image models of pytorch-image-models.

timm:resnet50.a1_in1k                             pretrained, pooled before the classifier
timm:resnet50.a1_in1k@<revision>                  the hub's revision of the weights
timm:resnet18:random=0:tap=layer2:grid=4          seeded and untrained, a block, a 4x4 raster
timm:resnet18.a1_in1k:weights=FILE                weights from a .safetensors or .pth file, behind
                                                  the preprocessing of that tag

Taps: `pooled` (default), `tokens` (all of a transformer, after its last norm), or a named block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL
import torch

from precompute.encoders import hub
from precompute.encoders.base import Encoder
from precompute.encoders.images import OPENING, pixels_of, probe_pixels
from precompute.encoders.options import (
    check_options,
    clear_failures,
    integer_option,
    near_names,
    number_option,
)
from precompute.encoders.taps import Block, ImagePooling
from precompute.encoders.weights_file import give_weights
from precompute.errors import EncoderError
from precompute.torchvision_operators import declare_missing_operators
from vqa_cache.spec import EncoderSpec, Modality

MODALITIES = ("image",)
TAPS = ("pooled", "tokens")
OPTIONS = ("grid", "size", "interpolation", "crop_pct")  # of any model, wherever its weights are
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in a repository of the hub


def load(spec: EncoderSpec, modality: Modality) -> Encoder:
    """See `precompute.encoders.load_encoder`."""
    check_options(spec, ("random", "weights", *OPTIONS))
    declare_missing_operators()
    module = _create(spec)
    lacks, left = _load_weights(spec, module)
    encoder = TimmImages(spec, module, spec.model, _commit(spec, module), lacks)
    encoder.notes = _notes(spec, left)
    return encoder


def _create(spec: EncoderSpec) -> torch.nn.Module:
    import timm

    random, weights = "random" in spec.options, spec.options.get("weights")
    known, name = timm.list_models(), spec.model.split(".")[0]
    if name not in known:
        near = ", ".join(near_names(name, known)) or "see timm.list_models()"
        raise EncoderError(f"encoder {spec}: timm has no model {spec.model!r}; near it: {near}")
    _check_tag(spec)
    if weights is not None and "." not in spec.model:
        _check_tags_agree(spec)
    if not random and weights is None:
        _check_files(spec)
    seed = integer_option(spec, "random", 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with hub.clear_errors(spec):
            model = timm.create_model(
                spec.model,
                pretrained=not random and weights is None,
                pretrained_cfg_overlay=_pinned(spec),
            )
    if random:
        _open_residual_branches(model)
    return model


def _check_tag(spec: EncoderSpec) -> None:
    """Raise EncoderError for a tag that the model has not."""
    import timm

    name, _, tag = spec.model.partition(".")
    known = timm.list_pretrained(f"{name}.*")
    if tag and spec.model not in known:
        tags = ", ".join(known[:8]) or "none"
        raise EncoderError(f"encoder {spec}: {name} has no tag {tag!r}; its tags: {tags}")


def _check_tags_agree(spec: EncoderSpec) -> None:
    """Raise EncoderError where a model's tags preprocess in different ways, so that nothing tells
    which of them a file's weights were trained with."""
    import timm
    from timm.data import resolve_data_config

    tags = timm.list_pretrained(f"{spec.model}.*")
    known = [one.to_dict() for tag in tags if (one := timm.get_pretrained_cfg(tag)) is not None]
    ways = [_with_options(spec, resolve_data_config(pretrained_cfg=one)) for one in known]
    first = ways[0] if ways else {}
    differ = [name for name in first if any(way[name] != first[name] for way in ways)]
    if differ:
        raise EncoderError(
            f"encoder {spec}: the weights of {spec.model} were trained with preprocessing that "
            f"differs by tag ({', '.join(differ)}); name the tag that FILE holds or began from: "
            f"timm:{tags[0]}:weights=FILE; tags: {', '.join(tags[:8])}"
        )


def _check_files(spec: EncoderSpec) -> None:
    """Raise EncoderError where neither the hub nor its local cache has the weights."""
    import timm

    known = timm.get_pretrained_cfg(spec.model)
    if known is not None and known.hf_hub_id:
        files = (known.hf_hub_filename,) if known.hf_hub_filename else _WEIGHTS
        hub.check_files(spec, known.hf_hub_id, *files)


def _pinned(spec: EncoderSpec) -> dict[str, Any] | None:
    """What tells timm to take the weights of the spec's revision."""
    if spec.revision is None:
        return None
    import timm

    known = timm.get_pretrained_cfg(spec.model)
    if known is None or not known.hf_hub_id:
        raise EncoderError(
            f"encoder {spec}: timm has no weights of {spec.model!r} on a hub, so it has no "
            "revisions; leave @ out, or name a model with its tag (timm.list_pretrained())"
        )
    return {"hf_hub_id": f"{known.hf_hub_id}@{spec.revision}"}


def _commit(spec: EncoderSpec, module: Any) -> str | None:
    """The commit of the weights that timm just read through the hub's local cache."""
    from huggingface_hub import try_to_load_from_cache

    if {"random", "weights"} & spec.options.keys():
        return None
    repository = str(module.pretrained_cfg.get("hf_hub_id") or "").partition("@")[0]
    for file in _WEIGHTS:
        path = try_to_load_from_cache(repository, file, revision=spec.revision)
        if isinstance(path, str):
            return hub.commit_of(path)
    return spec.revision


def _open_residual_branches(model: torch.nn.Module) -> None:
    """Set scales that timm initialises to zero to one. Training would open these branches; in a
    network that stays untrained every residual block would be the identity."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            scale = module.weight  # None without affine parameters
            if scale is not None and not scale.any():
                torch.nn.init.ones_(scale)


def _load_weights(spec: EncoderSpec, model: Any) -> tuple[list[str], list[str]]:
    """Load the file that the spec names, if any; the classifier may be absent from it, or be of
    other classes, where the tap does not use it. As `give_weights`."""
    if "weights" not in spec.options:
        return [], []
    named = model.pretrained_cfg.get("classifier") or ()
    heads = (named,) if isinstance(named, str) else tuple(named)
    used = any(f"{spec.tap}.".startswith(f"{head}.") for head in heads)
    return give_weights(spec, model, Path(spec.options["weights"]), () if used else heads)


def _notes(spec: EncoderSpec, left: Sequence[str]) -> tuple[str, ...]:
    """What to tell about entries of the file that were left out."""
    if not left:
        return ()
    return (f"encoder {spec}: the file's classifier ({', '.join(left)}) is not used by its tap",)


class TimmImages(Encoder):
    """A timm model; tap "pooled" is the input of its classifier."""

    modality = "image"
    library = "timm"
    batch_kind = "in-order"
    batch_size = 16  # a batch of activations should stay in the processor's cache

    def __init__(
        self,
        spec: EncoderSpec,
        module: torch.nn.Module,
        model: str,
        revision: str | None,
        unused: Sequence[str] = (),
    ) -> None:
        """
        Args:
            model: its name in timm's list.
            revision: the hub's commit of the weights, None where they are random or local.
            unused: see `Encoder`.
        """
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(spec, module, unused)
        self.label, self._revision = model, revision
        self._data = _data_config(spec, module)
        from timm.data import create_transform

        self._transform = create_transform(**self._data, is_training=False)
        self._pool = ImagePooling(
            grid=integer_option(spec, "grid", 0, least=1),
            prefix_tokens=getattr(module, "num_prefix_tokens", 0),
            channels_last=getattr(module, "output_fmt", "NCHW") == "NHWC",
        )
        if spec.tap not in TAPS:
            self.block = Block(module, str(spec.tap), f"encoder {spec}")
        own = {"pooled": "pooled", "tokens": "none"}
        self.pooling = self._pool.name if self._pool.grid else own.get(str(spec.tap), "mean")
        with clear_failures(spec), torch.inference_mode():
            self.row_shape = tuple(self.encode([probe_pixels(spec, self._transform)]).shape[1:])

    @property
    def model(self) -> str:
        return self.label

    @property
    def revision(self) -> str | None:
        return self._revision

    def prepare(self, item: str) -> torch.Tensor:
        """Pixels float32 [3, height, width]."""
        return pixels_of(item, self._transform)

    def length(self, prepared: torch.Tensor) -> int:
        return 0

    def collate(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(prepared))

    def beside(self, spec: EncoderSpec) -> Encoder:
        return TimmImages(spec, self.module, self.label, self._revision)

    def call(self, inputs: torch.Tensor) -> Any:
        return self.module(x=inputs.contiguous(memory_format=torch.channels_last))

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        model: Any = self.module
        features: torch.Tensor = model.forward_features(
            inputs.contiguous(memory_format=torch.channels_last)
        )
        return features

    def rows(self, output: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        if self.block is not None:
            return self._pool(output)
        if self.spec.tap == "tokens":
            return self._tokens(output)
        if self._pool.grid:
            return self._pool(output)
        model: Any = self.module
        pooled: torch.Tensor = model.forward_head(output, pre_logits=True)
        return pooled.float()

    def _tokens(self, features: torch.Tensor) -> torch.Tensor:
        """float32 [batch, tokens, width], class and register tokens first."""
        if features.ndim != 3 or self._pool.grid:
            found = f"the model gives {list(features.shape[1:])}"
            raise EncoderError(
                f"encoder {self.spec}: tap tokens takes no grid= and needs a model of tokens, "
                f"{found}; name tap=pooled with grid=g, or a block"
            )
        return features.float()

    def architecture(self) -> dict[str, Any]:
        # the printed modules name every activation, which the weights do not
        return {"modules": hashlib.sha256(repr(self.module).encode()).hexdigest()}

    def preprocessing(self) -> dict[str, Any]:
        data = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self._data.items()
        }
        return {"backend": f"Pillow {PIL.__version__}", **OPENING, **data}


def _data_config(spec: EncoderSpec, module: torch.nn.Module) -> dict[str, Any]:
    from timm.data import resolve_model_data_config

    return _with_options(spec, resolve_model_data_config(module))


def _with_options(spec: EncoderSpec, data: dict[str, Any]) -> dict[str, Any]:
    """A model's preprocessing with what the spec says otherwise."""
    data = dict(data)
    size = integer_option(spec, "size", 0, least=1)
    if size:
        data["input_size"] = (3, size, size)
    if "interpolation" in spec.options:
        known = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
        if spec.options["interpolation"] not in known:
            raise EncoderError(f"encoder {spec}: interpolation is one of {', '.join(known)}")
        data["interpolation"] = spec.options["interpolation"]
    if "crop_pct" in spec.options:
        data["crop_pct"] = number_option(spec, "crop_pct")
        if not 0.1 <= data["crop_pct"] <= 1:  # the picture is resized to size / crop_pct
            raise EncoderError(f"encoder {spec}: crop_pct: expected a number from 0.1 to 1")
    return data
