"""Where local models are; imports no encoder library."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from precompute.errors import EncoderError
from vqa_cache.spec import EncoderSpec


def local_folder(spec: EncoderSpec) -> Path | None:
    """The folder that a `dir:` or `pkg:` spec means, also behind `st:`; None for the hub.

    Raises:
        EncoderError: the folder or the package is missing.
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
    file, maker = (
        ("modules.json", "SentenceTransformer.save")
        if spec.family == "st"
        else ("config.json", "save_pretrained")
    )
    if not (folder / file).is_file():
        raise EncoderError(
            f"encoder {spec}: no {file} in {folder}; expected a folder made by {maker}"
        )
    return folder
