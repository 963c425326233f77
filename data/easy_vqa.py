"""easy-VQA: 5,000 images of one coloured shape and 48,248 questions, from the PyPI package.

Source: Victor Zhou's dataset, package `easy-vqa` (MIT). `{split}/questions.json` is a list of
[question, answer, image id]; images are `{split}/images/{id}.png`, 64 x 64 px. The two splits,
train and test, count their image ids from 0 each; ids are unique within a split alone.

The files carry neither question ids nor types, so they are derived:

- `question_id`: the question's position in its file, from 0.
- `question_type`: "what color", "what shape", "is there", "is there not" (also for "is
  no circle present?").
- `answer_type`: "yes/no", "color", "shape", by the answer; "other" where none fits.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from data.example import (
    DatasetError,
    Example,
    Problem,
    ordered_splits,
    report,
    require_folder,
    require_split,
)
from data.json_file import read_json

SHAPES = frozenset({"circle", "rectangle", "triangle"})
COLORS = frozenset({"red", "green", "blue", "black", "gray", "teal", "brown", "yellow"})


def installed_folder() -> Path:
    """The data folder of the installed package, found without importing it.

    Raises DatasetError where the package is not installed.
    """
    found = importlib.util.find_spec("easy_vqa")
    if found is None or not found.submodule_search_locations:
        raise DatasetError(
            "dataset easy_vqa: the package easy-vqa is not installed and no folder was named; run "
            "'pip install easy-vqa', or name a folder that holds train/ and test/ with --root"
        )
    return Path(found.submodule_search_locations[0]) / "data"


def question_type(question: str, answer: str) -> str:
    """A short stable label of the question, see the module's docstring."""
    if answer in ("yes", "no"):
        negated = " not " in question or " no " in question
        return "is there not" if negated else "is there"
    return "what color" if "color" in question else "what shape"


def answer_type(answer: str) -> str:
    """A short stable label of the answer, see the module's docstring."""
    if answer in ("yes", "no"):
        return "yes/no"
    if answer in COLORS:
        return "color"
    return "shape" if answer in SHAPES else "other"


class EasyVqa:
    """Adapter of easy-VQA; `root` None reads the installed package."""

    name = "easy_vqa"

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = installed_folder() if root is None else Path(root)

    def splits(self) -> list[str]:
        require_folder(self)
        return ordered_splits(path.parent.name for path in self.root.glob("[!.]*/questions.json"))

    def annotated(self, split: str) -> bool:
        require_split(self, split)
        return True

    def remarks(self, split: str) -> list[str]:
        return []

    def expected_files(self) -> list[str]:
        return [
            f"{split}/{name}"
            for split in ("train", "test")
            for name in ("questions.json", "images/*.png")
        ]

    def examples(self, split: str, problems: list[Problem] | None = None) -> Iterator[Example]:
        require_split(self, split)
        path = self.root / split / "questions.json"
        rows = read_json(path, "a list of [question, answer, image id]")
        if not isinstance(rows, list):
            raise DatasetError(
                f"{path}: found a JSON {type(rows).__name__}, expected a list of "
                "[question, answer, image id]; install easy-vqa again"
            )
        for ordinal, row in enumerate(rows):
            match row:
                case [str(question), str(answer), int(image_id)]:
                    yield Example(
                        question_id=ordinal,
                        image_ids=(image_id,),
                        images=(f"{split}/images/{image_id}.png",),
                        question=question,
                        answer=answer,
                        answers=(answer,),
                        question_type=question_type(question, answer),
                        answer_type=answer_type(answer),
                    )
                case [str(_), None, int(_)] | [str(_), int(_)]:
                    report(problems, ordinal, f"{path}: missing annotation of question {ordinal}")
                case _:
                    report(
                        problems,
                        ordinal,
                        f"{path}: entry {ordinal} is {str(row)[:80]!r}, expected [question, "
                        "answer, image id]",
                    )
