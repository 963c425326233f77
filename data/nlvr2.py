"""NLVR2: a sentence about two photographs, left and right; is it true?

Source: github.com/lil-lab/nlvr (Suhr et al. 2019). CC BY 4.0; images are not included.

    {train,dev,test1}.json, or data/{train,dev,test1}.json     one JSON object a line
    images/train/<directory>/<set>-img{0,1}.png
    {dev,test1}/<set>-img{0,1}.png     or images/dev/, images/test1/

86,373, 6,982 and 6,967 sentences of train, dev and test1 (the public test). An example has two
images, img0 the left one. An identifier such as "dev-850-0-1" is the question's id; without its
last number it names the pair of images. dev is "val" here, test1 "test".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from data.image_folders import ImageFolders
from data.json_file import json_lines
from data.records import Files, Malformed, Record, Records, required, shown

_NAMES = {"train": "train", "val": "dev", "test": "test1"}


class Nlvr2(Records):
    """Adapter of NLVR2, see the module's docstring for the files."""

    name = "nlvr2"
    files: ClassVar[Files] = {
        split: (f"{name}.json", f"data/{name}.json") for split, name in _NAMES.items()
    }
    pictures = ("images/train/*/train-*-img*.png", "dev/dev-*-img*.png", "test1/test1-*-img*.png")

    def rows(self, split: str) -> Iterator[tuple[str, Any]]:
        folders: dict[str, ImageFolders] = {}
        for where, row in json_lines(self.paths(split)[0]):
            directory = "" if isinstance(row, Malformed) else str(row.get("directory", ""))
            if directory not in folders:
                folders[directory] = self._images(_NAMES[split], directory)
            yield where, row if isinstance(row, Malformed) else (row, folders[directory])

    def record(self, row: Any, split: str) -> Record:
        entry, images = row
        sentence, identifier = required(entry, "sentence", "identifier")
        if not isinstance(identifier, str) or identifier.count("-") != 3 or "/" in identifier:
            raise Malformed(f"identifier is {shown(identifier)}, expected one such as dev-850-0-1")
        pair = identifier.rpartition("-")[0]
        names = [f"{pair}-img{number}" for number in range(2)]
        return {
            "question_id": identifier,
            "image": [images.path(f"{name}.png") for name in names],
            "image_id": names,
            "question": sentence,
            "answer": entry.get("label"),
        }

    def _images(self, name: str, directory: str) -> ImageFolders:
        """Pictures of train lie in numbered directories, the others together."""
        places = [f"images/{name}", name] if name == "train" else [name, f"images/{name}"]
        below = f"/{directory}" if directory.isdecimal() else ""
        return ImageFolders(self.root, [*(f"{place}{below}" for place in places), *places])
