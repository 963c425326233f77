"""A view: some examples of a dataset under a name of their own, as `datasets/<name>.toml` says.

    from = "vqa2"                   # the dataset
    root = "datasets/vqa2"          # its folder; left out, the one it has by default
    order = "seed"                  # "file" (the default), or "seed"
    by = "image"                    # stays together: "example" (the default), "image", "answer"
    seed = 0

    [select]                        # of all examples, before they are split
    answer_types = ["number"]
    question_types = ["how many"]
    answers = ["1", "2", "3"]       # or the name of a file with one answer a line

    [splits]                        # split of the view = slices of the dataset's, joined by "+"
    train = "val[:75%]"
    val = "val[75%:80%]"
    test = "val[80%:]"

A slice is as Python has it, over the selected examples of one split of the dataset: whole numbers
count examples, -1000 from the end; decimals and percents are shares, of n examples floor(share x n
+ 1/2). Examples come in the order of the files. With order = "seed" they are first ranked by the
SHA-256 of "<seed> <split> <unit>", where a unit is the question's place among all of the split
("example"); the least path of all images that examples share, directly or through others ("image");
or question type and answer ("answer"). A unit is never cut: it belongs to the slice that the middle
one of its examples is in, so counts are met as nearly as units allow. "image" makes splits that
share no image; "answer" makes splits whose answers to a type of question differ, which is harder
still than VQA-CP. Either way a view keeps the dataset's ids, with "<split>/" in front where a
joined split would have one twice.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

from data.example import Dataset, DatasetError, Example, Problem, nfc, ordered_splits, require_split
from data.text_file import text_lines

_NUMBER = r"-?\d+(?:\.\d+)?%?|-?\.\d+%?"
_SLICE = re.compile(rf"\s*([\w.-]+?)\s*(?:\[\s*({_NUMBER})?\s*:\s*({_NUMBER})?\s*\])?\s*")
_KEYS = {
    "from": str,
    "root": str,
    "order": str,
    "by": str,
    "seed": int,
    "select": dict,
    "splits": dict,
}
_SELECT = ("answer_types", "question_types", "answers")


@dataclass(frozen=True)
class Slice:
    """A piece of one split of the dataset: from `start` to `stop`, as they are written."""

    split: str
    start: str
    stop: str


def bound(text: str, n: int) -> int:
    """A slice's bound as a place among n examples."""
    share = Fraction(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if "." in text or text.endswith("%"):
        share = Fraction((share * n * 2 + 1) // 2)  # rounded, a half upwards
    place = int(share)
    return min(max(place + n if place < 0 else place, 0), n)


class View:
    """Adapter of a view, see the module's docstring for its file."""

    def __init__(self, path: Path, dataset: Dataset, settings: Mapping[str, Any]) -> None:
        """`settings` are those of `read_view`."""
        self.name, self.root = path.stem, dataset.root
        self._path, self._dataset, self._settings = path, dataset, settings
        self._splits: dict[str, list[Slice]] = settings["splits"]

    def splits(self) -> list[str]:
        for slices in self._splits.values():
            for piece in slices:
                require_split(self._dataset, piece.split)
        return ordered_splits(self._splits)

    def annotated(self, split: str) -> bool:
        require_split(self, split)
        return all(self._dataset.annotated(piece.split) for piece in self._splits[split])

    def remarks(self, split: str) -> list[str]:
        return []

    def expected_files(self) -> list[str]:
        return self._dataset.expected_files()

    def examples(self, split: str, problems: list[Problem] | None = None) -> Iterator[Example]:
        require_split(self, split)
        chosen = [(piece, self._chosen(piece)) for piece in self._splits[split]]
        twice = len(chosen) > 1 and self._ids_collide(split)
        for piece, places in chosen:
            for place, example in enumerate(self._dataset.examples(piece.split, problems)):
                if places[place]:
                    given = example.question_id
                    yield (
                        replace(example, question_id=f"{piece.split}/{given}") if twice else example
                    )

    def _ids_collide(self, split: str) -> bool:
        """Whether two splits that are joined have an id in common."""
        seen: set[int | str | None] = set()
        for source in dict.fromkeys(piece.split for piece in self._splits[split]):
            own = {str(example.question_id) for example in self._dataset.examples(source, [])}
            if not seen.isdisjoint(own):
                return True
            seen |= own
        return False

    def _chosen(self, piece: Slice) -> bytearray:
        """For each readable example of a split whether it is in the slice."""
        units = self._units(piece.split)
        sizes: dict[int, int] = {}
        for unit in units:
            if unit >= 0:
                sizes[unit] = sizes.get(unit, 0) + 1
        ranked = sorted(sizes)  # units are numbered by rank
        n = sum(sizes.values())
        start, stop = bound(piece.start, n), bound(piece.stop, n)
        ends = list(accumulate(sizes[unit] for unit in ranked))
        inside = {
            unit
            for unit, end in zip(ranked, ends, strict=True)
            if start <= (2 * end - sizes[unit]) // 2 < stop
        }
        return bytearray(unit in inside for unit in units)

    def _units(self, split: str) -> list[int]:
        """For each readable example the rank of its unit, -1 where it is not selected."""
        selected = self._settings["select"]
        names: list[str | None] = []
        linked = _Linked()
        for place, example in enumerate(self._dataset.examples(split, [])):
            names.append(self._unit(place, example) if _is_selected(example, selected) else None)
            if self._settings["by"] == "image":
                linked.join(example.images)
        if self._settings["by"] == "image":
            names = [None if name is None else linked.least(name) for name in names]
        distinct = list(dict.fromkeys(name for name in names if name is not None))
        if self._settings["order"] == "seed":
            head = f"{self._settings['seed']} {split} "
            distinct.sort(key=lambda name: (hashlib.sha256((head + name).encode()).digest(), name))
        rank = {name: number for number, name in enumerate(distinct)}
        return [-1 if name is None else rank[name] for name in names]

    def _unit(self, place: int, example: Example) -> str:
        by = self._settings["by"]
        if by == "answer":
            return f"{example.question_type or ''}\0{example.answer or ''}"
        return example.images[0] if by == "image" else str(place)


class _Linked:
    """Paths in groups: joined ones are of one group."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def least(self, path: str) -> str:
        """The least path of the group."""
        while (above := self._above.get(path, path)) != path:
            self._above[path] = self._above.get(above, above)
            path = above
        return path

    def join(self, paths: tuple[str, ...]) -> None:
        first = self.least(paths[0])
        for path in paths[1:]:
            low, high = sorted((first, self.least(path)))
            self._above[high], first = low, low


def _is_selected(example: Example, selected: Mapping[str, frozenset[str]]) -> bool:
    given = {
        "answer_types": example.answer_type,
        "question_types": example.question_type,
        "answers": example.answer,
    }
    return all(given[key] in wanted for key, wanted in selected.items())


def read_view(path: Path) -> dict[str, Any]:
    """The settings of a view's file, checked. Raises DatasetError."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError
        raise DatasetError(f"{path}: not valid TOML: {error}") from None
    for key, value in content.items():
        if key not in _KEYS or type(value) is not _KEYS[key]:
            raise DatasetError(f"{path}: {key} = {value!r}; expected one of {', '.join(_KEYS)}")
    for key in ("from", "splits"):
        if not content.get(key):
            raise DatasetError(
                f"{path}: no {key}; expected the dataset's name and a table [splits]"
            )
    settings = {"order": "file", "by": "example", "seed": 0, "select": {}, "root": None, **content}
    for key, allowed in (("order", ("file", "seed")), ("by", ("example", "image", "answer"))):
        if settings[key] not in allowed:
            found = settings[key]
            raise DatasetError(f"{path}: {key} = {found!r}; expected {' or '.join(allowed)}")
    settings["select"] = {k: _wanted(path, k, v) for k, v in settings["select"].items()}
    settings["splits"] = {k: _slices(path, k, v) for k, v in settings["splits"].items()}
    return settings


def _wanted(path: Path, key: str, value: Any) -> frozenset[str]:
    if key == "answers" and isinstance(value, str):
        value = text_lines(path.parent / value)
    texts = isinstance(value, list) and value and all(isinstance(one, str) for one in value)
    if key not in _SELECT or not texts:
        raise DatasetError(
            f"{path}: select.{key} = {value!r}; expected {', '.join(_SELECT)}, each a list of texts"
        )
    return frozenset(map(nfc, value))


def _slices(path: Path, split: str, value: Any) -> list[Slice]:
    pieces = (
        [_SLICE.fullmatch(piece) for piece in value.split("+")] if type(value) is str else [None]
    )
    found = [Slice(one[1], one[2] or "0", one[3] or "100%") for one in pieces if one is not None]
    if len(found) < len(pieces):
        raise DatasetError(
            f"{path}: splits.{split} = {value!r}; expected a split of the dataset, or a slice of "
            'it such as "val[:75%]" or "train[-1000:]"; several joined by "+"'
        )
    return found
