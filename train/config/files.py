"""Experiments read, checked and written as TOML; `vqa_cache.experiments` finds their files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from train.config.check import check, check_about
from train.config.faithful import apply_faithful
from train.config.schema import DOCUMENTATION, Experiment, StandIn, Weights
from train.errors import ConfigError
from vqa_cache.experiments import ExperimentError, Read, read_experiment, value_at


def load_experiment(name: str, overrides: Iterable[str] = ()) -> Experiment:
    """Read and check an experiment.

    Args:
        name: a bare name, found anywhere under `experiments/`, or a path to a TOML file.
        overrides: "KEY=VALUE": a dotted key and a TOML value, or a text where it does not parse.

    Raises:
        ConfigError: with every error at once, one line each.
    """
    overrides = list(overrides)
    try:
        read = read_experiment(name, overrides)
    except ExperimentError as error:
        raise ConfigError([str(error)]) from None
    values, errors = dict(read.values), list(read.errors)
    faithful = values.pop("faithful", [])
    errors += apply_faithful(values, faithful, [one.partition("=")[0] for one in overrides])
    said = {key: values.pop(key) for key in DOCUMENTATION if key in values}
    about = check_about(said, errors)
    config = check(values, errors)
    about = about.model_copy(update={"faithful": faithful, "stand_ins": _stand_ins(read)})
    features = [piece for piece in overrides if piece.startswith("features.")]
    command = shlex.join(["python", "-m", "precompute", "--for", name, *features])
    return Experiment(read.path.stem, config, command, about)


def _stand_ins(read: Read) -> dict[str, StandIn]:
    found = {}
    for key, was in read.stood_in.items():
        used = value_at(read.values, key)
        seeded = "random=" in str(used)
        encoder = key.startswith("features.") and isinstance(used, str) and ":" in used
        weights: Weights | None = "seeded" if seeded else "pretrained" if encoder else None
        found[key] = StandIn(instead_of=was, used=used, weights=weights)
    return found


def show(experiment: Experiment) -> str:
    """An experiment resolved, as a TOML file that means the same."""
    about = experiment.about.model_dump(exclude_none=True, include=set(DOCUMENTATION))
    return to_toml({**about, **experiment.config.values()})


def to_toml(values: Mapping[str, Any]) -> str:
    """Nested dicts of plain values as TOML: keys without a section first."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    lines = [f"{key} = {_toml_value(value)}" for key, value in plain.items()]
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{key}]"]
            lines += [f"{name} = {_toml_value(item)}" for name, item in value.items()]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, str):
        # JSON escapes are TOML escapes, except for characters beyond 16 bits: left as they are
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    return str(value).lower() if isinstance(value, bool) else repr(value)
