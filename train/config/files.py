"""Experiments as TOML files under `experiments/`, or anywhere: found, read, written."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from train.components.lookup import did_you_mean
from train.config.check import check
from train.config.keys import parse_value
from train.config.schema import Experiment
from train.errors import ConfigError

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


def experiment_files() -> dict[str, Path]:
    """Name -> file of every experiment that ships. Raises ConfigError for a name used twice."""
    files: dict[str, Path] = {}
    for path in sorted(EXPERIMENTS.rglob("*.toml")):
        if path.stem in files:
            raise ConfigError(
                [f"experiment {path.stem!r} exists twice: {files[path.stem]}, {path}"]
            )
        files[path.stem] = path
    return files


def describe(path: Path) -> str:
    """The first comment line of an experiment's file."""
    first = path.read_text("utf-8-sig").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def load_experiment(name: str, overrides: Iterable[str] = ()) -> Experiment:
    """Read and check an experiment.

    Args:
        name: a bare name, found anywhere under `experiments/`, or a path to a TOML file.
        overrides: "KEY=VALUE": a dotted key and a TOML value, or a text where it does not parse.

    Raises:
        ConfigError: with every error at once, one line each.
    """
    overrides = list(overrides)
    path = _find(name)
    try:
        values = tomllib.loads(path.read_text("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: not valid TOML: {error}"]) from None
    errors: list[str] = []
    for override in overrides:
        errors += apply_override(values, override)
    config = check(values, errors)
    features = [piece for piece in overrides if piece.startswith("features.")]
    command = shlex.join(["python", "-m", "precompute", "--for", name, *features])
    return Experiment(path.stem, config, command)


def _find(name: str) -> Path:
    if name.endswith(".toml") or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise ConfigError([f"experiment file {path}: not found"])
        return path
    files = experiment_files()
    if name not in files:
        hint = did_you_mean(name, files)
        raise ConfigError([f"unknown experiment {name!r}{hint}; known: {', '.join(files)}"])
    return files[name]


def apply_override(values: dict[str, Any], override: str) -> list[str]:
    """Set one "KEY=VALUE" in nested dicts; returns what is wrong with it, if anything."""
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        return [f"{override!r}: expected KEY=VALUE, for example train.epochs=20"]
    place = values
    for part in parts[:-1]:
        below = place.setdefault(part, {})
        if not isinstance(below, dict):
            return [f"{key}: {part} is a value, not a section"]
        place = below
    place[parts[-1]] = parse_value(text)
    return []


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
