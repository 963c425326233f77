"""A table of the page: columns that know how their cells are written and sorted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["text", "count", "share", "bar", "number", "figure"]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        kind: "text", "count" (a whole number), "share" (0 to 1), "bar" (a share, drawn too),
            "number" (four digits), "figure" (a share, or a count where it is whole).
    """

    name: str
    kind: Kind = "text"

    def shown(self, value: Any) -> str:
        """A cell as a person reads it; `-` where there is no value."""
        if value is None:
            return "-"
        if self.kind == "count" or (self.kind == "figure" and isinstance(value, int)):
            return f"{value:,}"
        if self.kind in ("share", "bar", "figure"):
            return f"{value:.3f}"
        if self.kind == "number" and isinstance(value, float):
            return f"{value:.4g}"
        return str(value)


@dataclass(frozen=True)
class Table:
    """Rows under columns; a row has a cell for each.

    Attributes:
        marked: numbers of rows that stand out.
        keys: what each row is of, for what follows it elsewhere on the page; none, or one a row.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    marked: frozenset[int] = frozenset()
    keys: Sequence[str] = field(default=())
