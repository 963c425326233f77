"""Experiments as TOML files: found by name, extended, fitted to a data set. Both stages read them.

extends = "name"        the file's keys on top of another experiment's; a section that names
                        another component replaces the whole section
[stand_in]              keys that replace others where `features.dataset` is one of `on`:
on = ["shapes"]         encoders that need no download, for data sets that need none
features.image = "…"
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vqa_cache.errors import CacheError

EXPERIMENTS = Path(__file__).parent.parent / "train" / "experiments"
EXTENDS, STAND_IN, ON = "extends", "stand_in", "on"
_OWN = ("published", EXTENDS)  # what an experiment does not take from the one that it extends


class ExperimentError(CacheError):
    """An experiment's file cannot be found or read; one line says why."""


@dataclass(frozen=True)
class Read:
    """An experiment's file with what it extends, its stand-ins and what a user typed.

    Attributes:
        values: nested plain values, `extends` and `stand_in` worked in and gone.
        stood_in: dotted key -> what the file has there, for every stand-in that is in use.
        errors: what is wrong with what was typed, a line each.
    """

    path: Path
    values: dict[str, Any]
    stood_in: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def experiment_files() -> dict[str, Path]:
    """Name -> file of every experiment that ships. Raises ExperimentError for a name used twice."""
    files: dict[str, Path] = {}
    for path in sorted(EXPERIMENTS.rglob("*.toml")):
        if path.stem in files:
            raise ExperimentError(
                f"experiment {path.stem!r} exists twice: {files[path.stem]}, {path}"
            )
        files[path.stem] = path
    return files


def describe(path: Path) -> str:
    """The first comment line of an experiment's file."""
    first = path.read_text("utf-8-sig").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def read_experiment(name: str, overrides: Iterable[str] = ()) -> Read:
    """An experiment's values.

    Args:
        name: a bare name, found anywhere under `experiments/`, or a path to a TOML file.
        overrides: "KEY=VALUE": a dotted key and a TOML value, or a text where it does not parse.

    Raises:
        ExperimentError: there is no such file, it is not valid TOML, or what it extends is not
            there or extends it.
    """
    path = find_experiment(name)
    values = _extended(path, [])
    overrides = list(overrides)
    stood_in: dict[str, Any] = {}
    stand_in = values.pop(STAND_IN, {})
    if not isinstance(stand_in, dict):
        raise ExperimentError(f"experiment {path}: stand_in is {stand_in!r}, expected a table")
    datasets = stand_in.pop(ON, [])
    if not isinstance(datasets, list):
        raise ExperimentError(
            f"experiment {path}: stand_in.on is {datasets!r}, expected a list of datasets"
        )
    if _dataset(values, overrides) in datasets:
        stood_in = {key: value_at(values, key) for key in _leaves(stand_in)}
        values = _merged(values, stand_in)
    used = {key: value_at(values, key) for key in stood_in}
    errors = [line for override in overrides for line in apply_override(values, override)]
    kept = {key: was for key, was in stood_in.items() if value_at(values, key) == used[key] != was}
    return Read(path, values, kept, errors)


def find_experiment(name: str, beside: Path | None = None) -> Path:
    """The file that a name or a path (relative to the folder `beside`) means. Raises
    ExperimentError."""
    if name.endswith(".toml") or "/" in name:
        path = Path(name) if beside is None else beside / name
        if not path.is_file():
            raise ExperimentError(f"experiment file {path}: not found")
        return path
    files = experiment_files()
    if name not in files:
        near = difflib.get_close_matches(name, files, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ExperimentError(
            f"unknown experiment {name!r}{hint}; known: {', '.join(files)}, "
            "or a path to a TOML file"
        )
    return files[name]


def _extended(path: Path, through: list[Path]) -> dict[str, Any]:
    """The file's values on top of those that it extends. `through`: the files that led here."""
    if path.resolve() in through:
        names = " extends ".join(one.stem for one in [*through, path])
        raise ExperimentError(f"experiment {path}: {names}: a circle; leave one extends out")
    try:
        values = tomllib.loads(path.read_text("utf-8-sig"))
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError
        raise ExperimentError(f"experiment {path}: not valid TOML: {error}") from None
    if EXTENDS not in values:
        return values
    base = values[EXTENDS]
    if not isinstance(base, str):
        raise ExperimentError(
            f"experiment {path}: extends is {base!r}, expected the name of an experiment"
        )
    try:
        found = find_experiment(base, path.parent)
    except ExperimentError as error:
        raise ExperimentError(f"experiment {path}: extends {base!r}: {error}") from None
    below = _extended(found, [*through, path.resolve()])
    inherited = {key: value for key, value in below.items() if key not in _OWN}
    own = {key: value for key, value in values.items() if key != EXTENDS}
    return _merged(inherited, own)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merged key by key; one that names another component replaces the whole."""
    merged = dict(below)
    for key, value in above.items():
        old = below.get(key)
        tables = isinstance(old, dict) and isinstance(value, dict)
        if tables and old and value.get("name", old.get("name")) == old.get("name"):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged


def _dataset(values: Mapping[str, Any], overrides: Iterable[str]) -> Any:
    """`features.dataset` of a file, or what was typed for it."""
    typed = [parse_value(text) for key, _, text in (one.partition("=") for one in overrides)
             if key == "features.dataset"]  # fmt: skip
    return typed[-1] if typed else value_at(values, "features.dataset")


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys of all values that are no table."""
    found = []
    for key, value in values.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return found


def value_at(values: Mapping[str, Any], key: str) -> Any:
    """What stands at a dotted key of nested tables; None where nothing does."""
    place: Any = values
    for part in key.split("."):
        place = place.get(part) if isinstance(place, dict) else None
    return place


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


def parse_value(text: str) -> Any:
    """A TOML value (number, boolean, quoted text, list), or the text itself."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    plain = isinstance(parsed["value"], bool | int | float | str | list)
    return parsed["value"] if plain and len(parsed) == 1 else text
