"""DAQUAR: questions about indoor scenes of NYU Depth v2, in the three forms that go around.

Source: mpi-inf.mpg.de, "Visual Turing Challenge" (Malinowski and Fritz 2014); its licence is
not stated with the files. The first form that is there is read:

1. `qa.894.raw.{train,test}.format_triple`: three lines a question: question, answer, image.
   6,795 and 5,673 questions on 794 and 653 images; no image is in both. `daquar_37` reads the
   reduced set with 37 classes of things, `qa.37.raw.{train,test}.format_triple`.
2. `data_train.csv` and `data_eval.csv` (question, answer, image_id): 9,974 and 2,494 rows of a
   random split. Nearly all images of data_eval are in data_train too, which `python -m data check`
   tells; a view (docs/datasets.md) splits by image. data_eval is called "test" here.
3. `all_qa_pairs.txt`: two lines a question, the first ending "in the imageN ?". With
   `train_images_list.txt` and `test_images_list.txt` beside it these are train and test, without
   them one split "all".

Images are `imageN.png` (N = 1 to 1449, 560x425), under the root, in `images/`, or in
`nyu_depth_images/`. Several answers stand in one text, "bed, lamp", which is kept as it is: WUPS
takes it apart. Neither form has question ids; the question's place, from 0, is one.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data.example import DatasetError
from data.image_folders import ImageFolders
from data.records import Malformed, Record, Records, shown
from data.text_file import text_lines

_IMAGE = re.compile(r"image\d+")
_IN_THE_IMAGE = re.compile(r"\s*\bin the (image\d+)\s*\??\s*$")
_PAIRS = "all_qa_pairs.txt"
_CSV = {"train": "data_train.csv", "test": "data_eval.csv"}


class Daquar(Records):
    """Adapter of DAQUAR, see the module's docstring for the files."""

    name = "daquar"
    classes = "894"
    pictures = ("images/image*.png",)

    def expected_files(self) -> list[str]:
        return [*(self._triples(split).name for split in ("train", "test")), *self.pictures]

    def found(self) -> Iterator[str]:
        for split in ("train", "test"):
            if self._path(split) is not None:
                yield split
        if self._form() == "pairs" and not self._lists():
            yield "all"

    def rows(self, split: str) -> Iterator[tuple[str, Any]]:
        images = ImageFolders(self.root, ("images", "nyu_depth_images", "."))
        form, path = self._form(), self._path(split)
        if form == "pairs":
            found = self._pairs(split)
        elif form == "csv" and path is not None:
            found = _of_csv(path)
        elif path is not None:
            found = _of_triples(path)
        else:
            raise DatasetError(f"dataset {self.name}: the questions of {split!r} went away")
        for place, (where, row) in enumerate(found):
            yield where, row if isinstance(row, Malformed) else (place, row, images)

    def record(self, row: Any, split: str) -> Record:
        place, (question, answer, image), images = row
        for what, text in (("question", question), ("answer", answer)):
            if not text:
                raise Malformed(f"the {what} is empty, expected a text")
        if not _IMAGE.fullmatch(image):
            raise Malformed(f"the image is {shown(image)}, expected image1 to image1449")
        return {
            "question_id": place,
            "image": images.path(f"{image}.png").removeprefix("./"),
            "image_id": image,
            "question": question,
            "answer": answer,
        }

    def _triples(self, split: str) -> Path:
        return self.root / f"qa.{self.classes}.raw.{split}.format_triple"

    def _form(self) -> str:
        if any(self._triples(split).is_file() for split in ("train", "test")):
            return "triples"
        if any((self.root / name).is_file() for name in _CSV.values()):
            return "csv"
        return "pairs" if (self.root / _PAIRS).is_file() else "none"

    def _path(self, split: str) -> Path | None:
        """The file that says what is in a split."""
        if split == "all":
            return None
        form = self._form()
        if form == "pairs":
            return self._lists().get(split)
        path = self.root / _CSV[split] if form == "csv" else self._triples(split)
        return path if path.is_file() else None

    def _lists(self) -> dict[str, Path]:
        """Split -> list of its images, beside the pairs."""
        paths = {s: self.root / f"{s}_images_list.txt" for s in ("train", "test")}
        return {split: path for split, path in paths.items() if path.is_file()}

    def _pairs(self, split: str) -> Iterator[tuple[str, Any]]:
        path = self.root / _PAIRS
        chosen = set(text_lines(self._lists()[split])) if split != "all" else None
        lines = text_lines(path)
        for start in range(0, len(lines), 2):
            where = f"{path}:{start + 1}"
            found = _IN_THE_IMAGE.search(lines[start])
            if found is None or start + 1 == len(lines):
                told = f"found {shown(lines[start])}, expected a question 'in the imageN ?'"
                yield where, Malformed(f"{told} and an answer below it")
            elif chosen is None or found[1] in chosen:
                yield where, (lines[start][: found.start()], lines[start + 1], found[1])


def _of_triples(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows end at a line "imageN", so that a missing line costs one question, not all behind it."""
    held: list[str] = []
    for number, line in enumerate(text_lines(path), start=1):
        held.append(line)
        if _IMAGE.fullmatch(line):
            yield f"{path}:{number}", _triple(held)
            held = []
    if held:
        yield f"{path}: end", _triple(held)


def _triple(lines: list[str]) -> Any:
    if len(lines) == 3:
        return tuple(lines)
    told = f"found {len(lines)} lines up to {shown(lines[-1])}"
    return Malformed(f"{told}, expected 3: question, answer, imageN")


def _of_csv(path: Path) -> Iterator[tuple[str, Any]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        wanted = ("question", "answer", "image_id")
        missing = [name for name in wanted if name not in (reader.fieldnames or ())]
        if missing:
            raise DatasetError(
                f"{path}: no column {', '.join(missing)}; found: "
                f"{', '.join(reader.fieldnames or ()) or 'none'}"
            )
        yield from _stripped(reader, path, wanted)


def _stripped(
    reader: csv.DictReader[str], path: Path, wanted: Iterable[str]
) -> Iterator[tuple[str, Any]]:
    for row in reader:
        yield f"{path}:{reader.line_num}", tuple((row[name] or "").strip() for name in wanted)


class Daquar37(Daquar):
    """The reduced set, see the module's docstring for the files."""

    name = "daquar_37"
    classes = "37"
