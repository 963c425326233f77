"""Reading the options of an encoder spec."""

from __future__ import annotations

from collections.abc import Collection

from precompute.errors import EncoderError
from vqa_cache.spec import EncoderSpec


def check_options(spec: EncoderSpec, known: Collection[str]) -> None:
    """Raise EncoderError, with the known ones, for an option that the family does not have."""
    for name in spec.options:
        if name not in known:
            raise EncoderError(
                f"encoder {spec}: unknown option {name!r}; {spec.family} knows: "
                f"{', '.join(sorted(known))}, tap"
            )


def integer_option(spec: EncoderSpec, name: str, default: int) -> int:
    """An option's value >= 0. Raises EncoderError where it is no whole number."""
    text = spec.options.get(name)
    if text is None:
        return default
    if not text.isdigit():
        raise EncoderError(f"encoder {spec}: option {name}={text}: expected a whole number >= 0")
    return int(text)
