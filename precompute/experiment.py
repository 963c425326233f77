"""Reading an experiment's `[features]` as a file; stage 1 imports nothing of stage 2."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from precompute.errors import PrecomputeError
from vqa_cache.experiments import ExperimentError, read_experiment
from vqa_cache.spec import Features


def read_features(experiment: str, overrides: tuple[str, ...]) -> Features:
    """`[features]` of an experiment, a name or a path to a TOML file, with `features.KEY=VALUE`.

    Raises:
        PrecomputeError: unknown experiment, key or value; the text names the known ones.
    """
    for override in overrides:
        key, separator, _ = override.partition("=")
        if not separator or not key.startswith("features."):
            raise PrecomputeError(
                f"{override!r}: expected features.KEY=VALUE "
                f"(KEY one of {', '.join(Features.model_fields)})"
            )
    try:
        read = read_experiment(experiment, overrides)
    except ExperimentError as error:
        raise PrecomputeError(str(error)) from None
    features = read.values.get("features", {})
    if read.errors or not isinstance(features, dict):
        raise PrecomputeError(f"experiment {read.path}: features is {features!r}, expected a table")
    try:
        return Features(**features)
    except ValidationError as error:
        problems = "; ".join(_told(problem) for problem in error.errors())
        raise PrecomputeError(f"experiment {experiment}: {problems}") from None


def _told(problem: Any) -> str:
    name = ".".join(("features", *map(str, problem["loc"])))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {name}; known: {', '.join(Features.model_fields)}"
    return f"{name}: {problem['msg'].removeprefix('Value error, ')}"
