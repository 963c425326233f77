"""Mistakes of published systems, reproduced where an experiment names them.

    faithful = ["sorted_unique_words"]

Each is a setting that anybody may choose; the name says that a published figure contains it.
`faithful=[]` on the command line runs the same system without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from data.answers import KEPT_APART
from train.components.lookup import did_you_mean
from train.config.keys import flatten


@dataclass(frozen=True)
class Mistake:
    """One of them.

    Attributes:
        settings: dotted key -> value; none where a cache cannot show it.
    """

    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)


MISTAKES: dict[str, Mistake] = {
    "l2_at_evaluation_only": Mistake(
        "image rows are given length 1 at evaluation, not in training",
        {"fusion.l2_inputs": ["image"], "fusion.l2_inputs_at": "evaluation"},
    ),
    "sorted_unique_words": Mistake(
        "an LSTM reads each word of a question once, in alphabetical order",
        {"question.tokeniser": "sorted_unique"},
    ),
    "answers_normalised_over_classes": Mistake(
        "the answer matrix is normalised over the answers, not each answer's vector",
        {"head.answers": "l2_over_answers"},
    ),
    "missing_comma": Mistake(
        "a missing comma joins two answers that were not to be merged with their singular",
        {"answers.kept_apart": [*(KEPT_APART - {"downs", "fries"}), "downsfries"]},
    ),
    "zero_division_1": Mistake(
        "a class that is never predicted has precision 1", {"evaluation.zero_division": 1}
    ),
    "batch_norm_in_train_mode": Mistake(
        "a frozen encoder's batch normalisation stayed in training mode, so that its features "
        "followed each batch"
    ),
}


def apply_faithful(values: dict[str, Any], named: Any, typed: Iterable[str]) -> list[str]:
    """Set what the named mistakes say; returns what is wrong, a line each.

    Args:
        values: of an experiment, changed in place.
        named: what `faithful` is.
        typed: dotted keys that a user typed, which a mistake may not replace.
    """
    if not isinstance(named, list):
        return [f"faithful = {named!r}: expected a list of: {', '.join(MISTAKES)}"]
    lines: list[str] = []
    for name in map(str, named):
        if name not in MISTAKES:
            hint = did_you_mean(name, MISTAKES)
            lines.append(f"faithful: unknown mistake {name!r}{hint}; known: {', '.join(MISTAKES)}")
        elif not MISTAKES[name].settings:
            lines.append(
                f"faithful: {name!r} ({MISTAKES[name].about}) cannot be shown over a cache, whose "
                "rows do not depend on the batch; leave it out"
            )
        else:
            lines += _apply(values, name, set(typed))
    return lines


def _apply(values: dict[str, Any], name: str, typed: set[str]) -> list[str]:
    lines: list[str] = []
    for key, value in MISTAKES[name].settings.items():
        if key in typed and flatten(values).get(key) != value:
            lines.append(
                f"{key} = {flatten(values).get(key)!r}: faithful names {name!r}, which sets it to "
                f"{value!r}; leave one of them out"
            )
        else:
            section, _, option = key.partition(".")
            place = values.setdefault(section, {})
            if isinstance(place, dict):  # what it is otherwise is told with the other errors
                place[option] = value
    return lines
