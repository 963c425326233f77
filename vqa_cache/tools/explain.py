"""Why two tables differ: their identities field by field, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vqa_cache.keys import unpack_keys
from vqa_cache.quantised import canary_rows, widened
from vqa_cache.table import Table

NOT_SET = "not set"
# every field of an identity (FORMAT.md 3.1) -> what it means that the field differs
IDENTITY = {
    "modality": "one holds images, the other texts",
    "library": "another library ran the encoder",
    "model": "another model",
    "revision": "another revision of the model",
    "weights": "other weights: every row differs",
    "architecture": "the model is built otherwise, an activation or a size, say",
    "preprocessing": "items reach the encoder otherwise",
    "tap": "the rows were taken at another place in the model",
    "pooling": "the tap's output was pooled otherwise",
    "dtype": "the rows are rounded to another stored type",
}
# what a table's record tells beside its identity -> what a difference can do
RECORDED = {
    "precision": "computed in another precision: rows differ by its rounding",
    "batch_plan": "batches of other sizes: rows differ in their last bits",
    "device": "computed on another device: rows differ in their last bits",
    "threads": "other orders of summation: rows may differ in their last bits",
    "environment": "other library versions when the first rows were made",
    "container": "other files, the same rows",
    "rows_per_shard": "other files, the same rows",
}


@dataclass(frozen=True)
class Difference:
    """One field, as a dotted path, with its value in either table."""

    field: str
    a: Any
    b: Any
    meaning: str


@dataclass(frozen=True)
class Explanation:
    """What two tables have in common and what not.

    Attributes:
        same: fields of the identity that agree.
        identity: differences that make two tables of them; none where they are the same table.
        recorded: differences that leave the identity alone.
        common_keys: items that both have rows of.
        canary_cosine: worst cosine between the canary rows of both; None where their shapes differ
            or there are none.
    """

    a: str
    b: str
    same: list[str]
    identity: list[Difference]
    recorded: list[Difference]
    common_keys: int
    canary_cosine: float | None


def explain(a: Table, b: Table) -> Explanation:
    """Compare the records of two tables, of one cache or of two."""
    first, second = a.record.identity.as_json(), b.record.identity.as_json()
    return Explanation(
        a=a.name,
        b=b.name,
        same=[field for field in IDENTITY if first.get(field) == second.get(field)],
        identity=_differences(first, second, IDENTITY),
        recorded=_differences(a.record.as_json(), b.record.as_json(), RECORDED),
        common_keys=len({*unpack_keys(a.keys)} & {*unpack_keys(b.keys)}),
        canary_cosine=_canary_cosine(a, b),
    )


def in_words(found: Explanation) -> Iterator[str]:
    """The explanation, line by line."""
    yield f"A: {found.a}"
    yield f"B: {found.b}"
    if not found.identity:
        yield "one identity: they are the same table, their rows mean the same"
    for difference in found.identity:
        yield f"{difference.field}: {_side_by_side(difference)} ({difference.meaning})"
    if found.identity:
        yield f"the same in both: {', '.join(found.same) or 'nothing'}"
    for difference in found.recorded:
        yield f"recorded {difference.field}: {_side_by_side(difference)} ({difference.meaning})"
    if found.canary_cosine is not None:
        yield f"canaries: the worst cosine between A and B is {found.canary_cosine:.6f}"
    yield f"items that both have: {found.common_keys:,}"


def _side_by_side(difference: Difference) -> str:
    return f"A {difference.a}, B {difference.b}"


def _differences(
    a: Mapping[str, Any], b: Mapping[str, Any], meanings: Mapping[str, str]
) -> list[Difference]:
    found = []
    for field, meaning in meanings.items():
        first, second = dict(_leaves(field, a.get(field))), dict(_leaves(field, b.get(field)))
        for path in sorted({*first, *second}):
            one, other = first.get(path, NOT_SET), second.get(path, NOT_SET)
            if one != other:
                found.append(Difference(path, one, other, meaning))
    return found


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Values inside nested objects by dotted path."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(f"{path}.{name}", inner)
    else:
        yield path, NOT_SET if value is None else value


def _canary_cosine(a: Table, b: Table) -> float | None:
    one, other = _canaries(a), _canaries(b)
    if one is None or other is None or one.shape != other.shape:
        return None
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products = (one * other).sum(axis=1)
    equal = (one == other).all(axis=1)  # rows of zeros too
    cosines = np.where(equal, 1.0, products / np.where(lengths == 0, 1.0, lengths))
    return float(cosines.min())


def _canaries(table: Table) -> npt.NDArray[np.float64] | None:
    """Canary rows of a table, [count, values of a row]; None without any or where ragged."""
    stored = table.record.canaries
    if table.ragged or not stored.count:
        return None
    return widened(canary_rows(table.record)).flatten(1).double().numpy()
