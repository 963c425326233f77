"""Whether the components of an experiment fit the inputs that they are given."""

from __future__ import annotations

from collections.abc import Mapping

from train.components import families
from train.components.families import Family
from train.components.lookup import accepts
from train.config.schema import Component
from train.errors import TrainError
from train.inputs.load import JoinedData
from train.inputs.specification import Grid, Specification, Tokens, Vector, Words

# what to name where an input is not of the kind that a component reads
_ADVICE = {
    Grid: "a tap with grid=g",
    Tokens: "tap=tokens, or imported regions",
    Vector: "a pooled tap (cls, mean, pooled)",
    Words: "no features.text, and the words are read",
}


def check_components(joined: JoinedData) -> None:
    """Raises TrainError, one line with both sides and what would do, where a component does not
    accept what the tables give, or a ragged table has nothing that reads its positions."""
    config, given = joined.experiment.config, joined.specifications
    texts = [name for name in given if name.startswith("text")]
    images = [name for name in given if name.startswith("image")]
    if config.question is not None:
        if texts != ["text"]:
            raise TrainError(
                f"question {config.question.name!r}: reads one text table, found {len(texts)}; "
                "name one in features.text"
            )
        _check(families.QUESTION, config.question, "given", "text", given, joined)
    if config.attention is not None:
        if not images:
            raise TrainError(
                f"attention {config.attention.name!r}: has no image to look at; set features.image"
            )
        if not texts:
            raise TrainError(
                f"attention {config.attention.name!r}: has no question to be led by; set "
                "features.text, or a [question] that reads words"
            )
        for name in images:
            _check(families.ATTENTION, config.attention, "image", name, given, joined)
    _check_side_by_side(images, given, joined, attended=config.attention is not None)
    for name, one in given.items():
        reader = config.attention if name in images else config.question
        if isinstance(one, Tokens) and reader is None:
            section = "[attention]" if name in images else "[question]"
            raise TrainError(
                f"features: table {joined.tables[name].name} is ragged (rows of varying numbers of "
                f"tokens: {one}) and nothing reads its tokens; name a {section}, or a table whose "
                "rows have one shape: tap=cls, mean or grid="
            )


def _check(
    family: Family,
    chosen: Component,
    parameter: str,
    name: str,
    given: Mapping[str, Specification],
    joined: JoinedData,
) -> None:
    kinds = accepts(family.find(chosen.name), parameter)
    if not kinds or isinstance(given[name], kinds):
        return
    expected = " or ".join(kind.__name__.lower() for kind in kinds)
    advice = "; or ".join(_ADVICE[kind] for kind in kinds if kind in _ADVICE)
    table = joined.tables[name].name if name in joined.tables else "the questions' words"
    raise TrainError(
        f"{family.kind} {chosen.name!r} reads {expected}, found {given[name]} in {table}; name "
        f"{advice} in features.{name.partition(' ')[0]}"
    )


def _check_side_by_side(
    images: list[str], given: Mapping[str, Specification], joined: JoinedData, *, attended: bool
) -> None:
    """Several tables of positions are one, wider: their rasters must be the same."""
    grids = {name: one for name in images if isinstance(one := given[name], Grid)}
    rasters = {(grid.h, grid.w) for grid in grids.values()}
    if attended and len(images) > 1 and (len(grids) < len(images) or len(rasters) > 1):
        found = ", ".join(f"{joined.tables[name].name} is {given[name]}" for name in images)
        raise TrainError(
            f"features.image: tables side by side need one raster, found {found}; name taps with "
            "the same grid="
        )
