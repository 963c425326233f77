"""Reading an experiment's `[features]` as a file; stage 1 imports nothing of stage 2."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from precompute.errors import PrecomputeError
from vqa_cache.spec import Features

EXPERIMENTS = Path(__file__).parent.parent / "train" / "experiments"


def read_features(experiment: str, overrides: tuple[str, ...]) -> Features:
    """`[features]` of an experiment, a name or a path to a TOML file, with `features.KEY=VALUE`.

    Raises:
        PrecomputeError: unknown experiment, key or value; the text names the known ones.
    """
    path = _find(experiment)
    try:
        features: Any = tomllib.loads(path.read_text("utf-8-sig")).get("features", {})
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError
        raise PrecomputeError(f"experiment {path}: not valid TOML: {error}") from error
    if not isinstance(features, dict):
        raise PrecomputeError(f"experiment {path}: features is {features!r}, expected a table")
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key.startswith("features."):
            raise PrecomputeError(
                f"{override!r}: expected features.KEY=VALUE "
                f"(KEY one of {', '.join(Features.model_fields)})"
            )
        features[key.removeprefix("features.")] = _toml_or_text(value)
    try:
        return Features(**features)
    except ValidationError as error:
        problems = "; ".join(_told(problem) for problem in error.errors())
        raise PrecomputeError(f"experiment {experiment}: {problems}") from None


def _find(experiment: str) -> Path:
    if experiment.endswith(".toml"):
        path = Path(experiment)
        if not path.is_file():
            raise PrecomputeError(f"experiment {experiment}: no such file")
        return path
    known = {path.stem: path for path in sorted(EXPERIMENTS.rglob("*.toml"))}
    if experiment not in known:
        raise PrecomputeError(
            f"unknown experiment {experiment!r}; known: {', '.join(known)}, "
            "or a path to a TOML file"
        )
    return known[experiment]


def _toml_or_text(value: str) -> Any:
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _told(problem: Any) -> str:
    name = ".".join(("features", *map(str, problem["loc"])))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {name}; known: {', '.join(Features.model_fields)}"
    return f"{name}: {problem['msg'].removeprefix('Value error, ')}"
