"""Reading the options of an encoder spec."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from precompute.errors import EncoderError
from vqa_cache.spec import EncoderSpec, SpecError, parse_spec

_NEAR = 8  # names that a message lists


def near_names(name: str, known: Sequence[str]) -> list[str]:
    """Known models whose name begins like this one, the shortest first, then alike ones."""
    begun = sorted((one for one in known if one.startswith(name)), key=lambda one: (len(one), one))
    alike = difflib.get_close_matches(name, known, _NEAR)
    return list(dict.fromkeys([*begun, *alike]))[:_NEAR]


def check_options(spec: EncoderSpec, known: Collection[str]) -> None:
    """Raise EncoderError, with the known ones, for an option that the family does not have."""
    for name in spec.options:
        if name not in known:
            raise EncoderError(
                f"encoder {spec}: unknown option {name!r}; {spec.family} knows: "
                f"{', '.join(sorted(known))}, tap"
            )


def integer_option(spec: EncoderSpec, name: str, default: int, *, least: int = 0) -> int:
    """An option's value >= `least`. Raises EncoderError where it is no such whole number."""
    text = spec.options.get(name)
    if text is None:
        return default
    # isdigit alone takes a superscript; a seed has 64 bits
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) >= least):
        raise EncoderError(
            f"encoder {spec}: option {name}={text}: expected a whole number >= {least} "
            "of at most 18 digits"
        )
    return int(text)


def choice_option(spec: EncoderSpec, name: str, choices: Sequence[str]) -> str | None:
    """An option's value, None where it is not given. Raises EncoderError for none of `choices`."""
    text = spec.options.get(name)
    if text is not None and text not in choices:
        raise EncoderError(
            f"encoder {spec}: option {name}={text}: expected one of {', '.join(choices)}"
        )
    return text


def tokenizer_option(spec: EncoderSpec) -> EncoderSpec:
    """The given `tokenizer`. Raises EncoderError where it names no place that has one."""
    try:
        named = parse_spec(spec.options["tokenizer"])
    except SpecError as error:
        raise EncoderError(f"encoder {spec}: tokenizer: {error}") from error
    if named.family not in ("hf", "dir", "pkg"):
        raise EncoderError(
            f"encoder {spec}: tokenizer: {named.family} has none; name hf:, dir: or pkg:"
        )
    return named


def number_option(spec: EncoderSpec, name: str) -> float:
    """A given option's value, finite and >= 0. Raises EncoderError where it is none."""
    text = spec.options[name]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise EncoderError(f"encoder {spec}: option {name}={text}: expected a number >= 0")
    return value


@contextmanager
def clear_failures(spec: EncoderSpec) -> Iterator[None]:
    """Around code that makes a model or runs it first: a model and options that do not go together
    raise whatever they like, which becomes an EncoderError."""
    try:
        yield
    except EncoderError as error:
        if str(error).startswith("encoder "):
            raise
        raise EncoderError(f"encoder {spec}: {error}") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"encoder {spec}: the model cannot be made or run with these options "
            f"({type(error).__name__}: {reason})"
        ) from error
