"""Values of an experiment checked before anything is loaded; every error at once, a line each."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from train.components import families
from train.components.lookup import did_you_mean, options_of, takes
from train.components.ranges import all_finite
from train.config.schema import About, Component, Config, Question, reads_words
from train.errors import ConfigError, TrainError


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


def check_about(said: Mapping[str, Any], lines: list[str]) -> About:
    """What documents an experiment; what is wrong is added to `lines`."""
    try:
        return About.model_validate(said)
    except ValidationError as error:
        lines += [_line(problem, said, About) for problem in error.errors()]
        return About()


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
    if config.train.uniform_init and config.question is not None and config.question.vectors:
        frozen = config.question.options.get("frozen")
        if not frozen:
            lines.append(
                f"train.uniform_init = {config.train.uniform_init}: would replace the word vectors "
                "of question.vectors; leave one out, or set question.frozen = true"
            )
    return lines


def _line(problem: Any, values: Mapping[str, Any], model: Any = Config) -> str:
    """One pydantic error as a line: dotted key, value, what was expected."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        siblings = _known_keys(location[:-1], model)
        hint = _near(location[-1], siblings, values)
        return f"{key} = {problem['input']!r}: unknown key{hint}; known: {', '.join(siblings)}"
    if problem["type"] == "missing":
        return f"{key}: missing"
    return f"{key} = {problem['input']!r}: {_expected(problem['msg'])}"


def _near(key: str, siblings: Iterable[str], values: Mapping[str, Any]) -> str:
    """The key itself in another section, or one of the same section that is spelt like it."""
    elsewhere = _sections_with(key, values)
    return f"; did you mean {elsewhere[0]}?" if elsewhere else did_you_mean(key, siblings)


def _known_keys(section: list[str], model: Any = Config) -> list[str]:
    for part in section:
        kind = model.model_fields[part].annotation
        model = next((one for one in get_args(kind) if one is not type(None)), kind)  # of X | None
    return list(model.model_fields)


def _sections_with(key: str, values: Mapping[str, Any]) -> list[str]:
    """Dotted keys that end in a key which was given without its section."""
    found = [f"{name}.{key}" for name in ("features", "answers", "evaluation", "train")
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
