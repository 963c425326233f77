"""NLVR: a sentence about six pictures of one arrangement of boxes; is it true?

Source: github.com/lil-lab/nlvr (Suhr et al. 2017); licence: see there.

    {train,dev,test}/{train,dev,test}.json     one JSON object a line
    {train,dev,test}/images/<directory>/<split>-<n>-<m>-<k>.png     k = 0 to 5

About 12,400, 989 and 990 sentences of train, dev and (public) test; six images each, which show
the same boxes in all their orders, so an example has six images. The identifier "n-m" is the
question's id: sentences of one n are one group, whose answers the official consistency wants all
right. dev is "val" here. A part of train that is held out should be whole directories: examples of
one n differ little, and they share no image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from data.json_file import json_lines
from data.records import Files, Malformed, Record, Records, required, shown

_NAMES = {"train": "train", "val": "dev", "test": "test"}
PERMUTATIONS = 6


class Nlvr(Records):
    """Adapter of NLVR, see the module's docstring for the files."""

    name = "nlvr"
    files: ClassVar[Files] = {
        split: (f"{name}/{name}.json", f"{name}.json") for split, name in _NAMES.items()
    }
    pictures = tuple(f"{name}/images/*/{name}-*.png" for name in _NAMES.values())

    def rows(self, split: str) -> Iterator[tuple[str, Any]]:
        return json_lines(self.paths(split)[0])

    def record(self, row: Record, split: str) -> Record:
        sentence, identifier, directory = required(row, "sentence", "identifier", "directory")
        if not isinstance(identifier, str) or identifier.count("-") != 1:
            raise Malformed(f"identifier is {shown(identifier)}, expected a text such as 12-0")
        name = _NAMES[split]
        names = [f"{name}-{identifier}-{number}" for number in range(PERMUTATIONS)]
        return {
            "question_id": identifier,
            "image": [f"{name}/images/{directory}/{image}.png" for image in names],
            "image_id": names,
            "question": sentence,
            "answer": row.get("label"),
        }
