"""Experiments: TOML files under `experiments/`, checked before anything is loaded.

A key is its dotted path ("head.hidden"). Sections with a `name` (fusion, head, loss, optimizer,
schedule) hand their other keys to the factory of that name, whose signature says what is allowed.
"""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from train.components import families
from train.components.lookup import accepts, did_you_mean, options_of, takes
from train.components.ranges import all_finite
from train.config.keys import flatten, parse_value
from train.errors import ConfigError, TrainError
from vqa_cache.spec import Features

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
# what changes neither weights nor figures, and so leaves a run's id alone
WITHOUT_EFFECT = ("load", "baselines", "train.keep_last", "train.keep_best", "train.snapshot_every")


class Section(BaseModel):
    """A section of fixed keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Component(BaseModel):
    """A section whose keys beside `name` are the options of a factory."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The factory's options."""
        return dict(self.model_extra or {})


class Question(Component):
    """How a question is read: a branch, and the words of those branches that read words.

    tokeniser: "whitespace" (lower case, punctuation apart), "sorted_unique" (each word once, in
        alphabetical order: a journal's mistake), or `pkg:`/`dir:` and a folder with a word-piece
        vocabulary.
    min_count: words that the training part has less often are unknown.
    longest: words of a question beyond these are left out.
    vectors: a file of word vectors that the embedding begins with.
    """

    tokeniser: str = "whitespace"
    min_count: int = Field(1, ge=1)
    longest: int = Field(30, ge=1)
    vectors: str | None = None


def hidden_widths(head: Component) -> list[int]:
    """Widths of a head's hidden layers, as far as its option `hidden` tells: a head of one's own
    may have a number there, or anything else."""
    hidden = head.options.get("hidden", [])
    widths = hidden if isinstance(hidden, list) else [hidden]
    return [width for width in widths if type(width) is int]


class Answers(Section):
    """Which answers there are to choose from.

    vocabulary: "train" takes the `k` most frequent answers of the training part; otherwise a text
        file with one answer a line, of which the first `k` count.
    source: count each example's majority answer, or the answers of all annotators.
    normalise: "vqa" merges answers that the official evaluation normalises alike.
    other: a truth outside the vocabulary is wrong, or of a class "other", or dropped.
    """

    vocabulary: str = "train"
    k: int = Field(1000, ge=1)
    source: Literal["majority", "all"] = "majority"
    normalise: Literal["none", "vqa"] = "none"
    other: Literal["wrong", "class", "drop"] = "wrong"


class Training(Section):
    """How long, in what pieces, and what is kept.

    overfit: train and evaluate on the first N examples alone (0 = off): a check that a head can
        learn at all.
    order: of the examples: "full" shuffles them all; with "by_image" a batch holds all questions
        of its images, and what depends on the image alone is computed once for each.
    precision: of matrix products; "auto" is bf16 where that is at least 1.3 times faster here.
    evaluate_every, snapshot_every: in epochs; a fraction is allowed, down to one step. An
        interrupted run goes on from its last snapshot (0 = none but the one that a signal makes).
    keep_last, keep_best: so many of the newest and of the best snapshots are kept.
    """

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(512, ge=1)
    order: Literal["full", "by_image"] = "full"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    overfit: int = Field(0, ge=0)
    snapshot_every: float = Field(1.0, ge=0, allow_inf_nan=False)
    evaluate_every: float = Field(1.0, gt=0, allow_inf_nan=False)
    keep_last: int = Field(2, ge=1)
    keep_best: int = Field(1, ge=0)


class Config(Section):
    """All of an experiment. `seed` draws weights and dropout, `data_seed` the held-out tenth and
    the order of samples."""

    seed: int = Field(0, ge=0)
    data_seed: int = Field(0, ge=0)
    load: Literal["auto", "map", "read"] = "auto"
    baselines: Literal["on", "off"] = "on"
    features: Features = Features()
    answers: Answers = Answers()
    question: Question | None = None
    attention: Component | None = None
    fusion: Component = Component(name="concat")
    head: Component
    loss: Component = Component(name="cross_entropy")
    optimizer: Component
    schedule: Component = Component(name="constant")
    train: Training = Training()

    @property
    def temperature(self) -> float:
        """What logits are divided by before they become probabilities: the loss's option of that
        name, 1 where it has none."""
        option = self.loss.options.get("temperature", 1.0)
        return float(option) if isinstance(option, int | float) else 1.0

    def values(self) -> dict[str, Any]:
        """The config as plain nested dicts, without keys that are None."""
        return self.model_dump(exclude_none=True)

    def identity(self) -> dict[str, Any]:
        """What of the config decides a run's outcome, flat: dotted key -> value."""
        flat = flatten(self.values())
        return {key: value for key, value in flat.items() if key not in WITHOUT_EFFECT}


@dataclass(frozen=True)
class Experiment:
    """A named config, and the command of stage 1 that encodes what it needs."""

    name: str
    config: Config
    precompute: str


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
    command = " ".join(["python -m precompute --for", name, *features])
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


def check(values: Mapping[str, Any], errors: Iterable[str] = ()) -> Config:
    """Values as a config with every option filled in. Raises ConfigError with all errors."""
    lines = list(errors)
    values = {key: _named(key, value) for key, value in values.items()}
    config: Config | None = None
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        lines += [_line(problem, values) for problem in error.errors()]
    filled: dict[str, Component] = {}
    for section, family in families.CHOSEN.items():
        given = getattr(config, section) if config else values.get(section)
        if isinstance(given, dict) and isinstance(given.get("name"), str):
            given = (Question if section == "question" else Component).model_construct(**given)
        if isinstance(given, Component):
            filled[section] = _fill(family, given, lines, values)
    if config is not None and not lines:
        config = config.model_copy(update=filled)
        lines += _contradictions(config)
    if lines or config is None:
        raise ConfigError(lines)
    return config


def _named(section: str, value: Any) -> Any:
    """A section without a name means its default one, where there is a default."""
    default = Config.model_fields[section].default if section in families.CHOSEN else None
    if isinstance(default, Component) and isinstance(value, dict):
        return {"name": default.name, **value}
    return value


def _fill(
    family: families.Family, given: Component, lines: list[str], values: Mapping[str, Any]
) -> Component:
    """The component with defaults filled in; what is wrong is added to `lines`."""
    section = family.kind
    try:
        known = options_of(family.find(given.name))
    except TrainError as error:
        lines.append(f"{section}.name: {error}")
        return given
    chosen: dict[str, Any] = {}
    for key, value in given.options.items():
        if key not in known:
            hint = _near(key, known, values)
            allowed = ", ".join(known) or "none"
            lines.append(
                f"{section}.{key} = {value!r}: unknown key{hint}; options of {section} "
                f"{given.name!r}: {allowed}"
            )
    for key, (annotation, default) in known.items():
        value = given.options.get(key, default)
        if value is inspect.Parameter.empty:
            lines.append(f"{section}.{key}: missing; {section} {given.name!r} requires it")
            continue
        try:
            chosen[key] = TypeAdapter(annotation).validate_python(value, strict=True)
        except ValidationError as error:
            expected = "; ".join(_expected(problem["msg"]) for problem in error.errors())
            lines.append(f"{section}.{key} = {value!r}: {expected}")
            continue
        if not all_finite(value):  # what says no range of its own
            lines.append(f"{section}.{key} = {value!r}: expected finite numbers")
    own = {name: getattr(given, name) for name in type(given).model_fields}
    return type(given)(**own, **chosen)


def _contradictions(config: Config) -> list[str]:
    """Keys that do not fit together."""
    lines = []
    features = config.features
    words = reads_words(config)
    if not features.images and not features.texts and not words:
        lines.append("features: neither image nor text is set; expected one of them at least")
    if words and features.texts and config.question is not None:
        lines.append(
            f"features.text = {features.text!r}: question {config.question.name!r} reads the words "
            "themselves; leave features.text out"
        )
    needs_answers = takes(families.HEAD.find(config.head.name), "answer_vectors")
    if needs_answers and features.answer_text is None:
        lines.append(
            f"features.answer_text: missing; head {config.head.name!r} compares with the encoded "
            "answers, so name the text encoder that encodes them"
        )
    normalised = any(config.head.options.get(key) for key in ("batch_norm", "batch_norm_input"))
    if normalised and config.train.batch_size == 1:
        lines.append("train.batch_size = 1: expected at least 2 with batch normalisation")
    return lines


def reads_words(config: Config) -> bool:
    """Whether the question branch is given words, which are made of the stored texts."""
    if config.question is None:
        return False
    kinds = accepts(families.QUESTION.find(config.question.name), "given")
    return any(kind.__name__ == "Words" for kind in kinds)


def _line(problem: Any, values: Mapping[str, Any]) -> str:
    """One pydantic error as a line: dotted key, value, what was expected."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        siblings = _known_keys(location[:-1])
        hint = _near(location[-1], siblings, values)
        return f"{key} = {problem['input']!r}: unknown key{hint}; known: {', '.join(siblings)}"
    if problem["type"] == "missing":
        return f"{key}: missing"
    return f"{key} = {problem['input']!r}: {_expected(problem['msg'])}"


def _near(key: str, siblings: Iterable[str], values: Mapping[str, Any]) -> str:
    """The key itself in another section, or one of the same section that is spelt like it."""
    elsewhere = _sections_with(key, values)
    return f"; did you mean {elsewhere[0]}?" if elsewhere else did_you_mean(key, siblings)


def _known_keys(section: list[str]) -> list[str]:
    model: Any = Config
    for part in section:
        model = model.model_fields[part].annotation
    return list(model.model_fields)


def _sections_with(key: str, values: Mapping[str, Any]) -> list[str]:
    """Dotted keys that end in a key which was given without its section."""
    found = [f"{name}.{key}" for name in ("features", "answers", "train")
             if key in _known_keys([name])]  # fmt: skip
    for section, family in families.CHOSEN.items():
        with suppress(TrainError, KeyError, TypeError):  # a wrong section has a line of its own
            if key in options_of(family.find(values[section]["name"])):
                found.append(f"{section}.{key}")
    return found


def _expected(message: str) -> str:
    message = message.removeprefix("Value error, ")
    if message.startswith("Input should be a valid dictionary"):
        return "expected a section of keys"
    start = "Input should be "
    return f"expected {message.removeprefix(start)}" if message.startswith(start) else message


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
