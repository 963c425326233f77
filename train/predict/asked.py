"""What was asked: one question, one about every image of a folder, or a file of questions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from train.errors import TrainError

# what is taken for an image in a folder; whether it is one, its content tells
SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".jp2", ".avif",
    ".tga", ".qoi",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A question about an image, or about several."""

    images: tuple[str, ...]
    question: str


def about(images: Sequence[Path], question: str) -> list[Asked]:
    """The same question about each image; a folder stands for the images in it.

    Raises:
        TrainError: a folder holds none.
    """
    files = []
    for path in images:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES)
        if not found:
            raise TrainError(f"{path}: no image in this folder; expected {', '.join(SUFFIXES)}")
        files += found
    return [Asked((str(path),), question) for path in files]


def read(path: Path) -> list[Asked]:
    """The lines of a file as a data set of one's own has them: `image` (a path beside the file, or
    a list of paths) and `question`; other keys are not read.

    Raises:
        TrainError: the file cannot be read, or a line is none of these.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainError(f"{path}: cannot be read ({error})") from None
    asked = [
        _line(f"{path}:{number}", path.parent, line)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not asked:
        raise TrainError(f"{path}: holds no question; expected one JSON object a line")
    return asked


def _line(where: str, folder: Path, line: str) -> Asked:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise TrainError(f"{where}: not valid JSON ({error})") from None
    row = row if isinstance(row, dict) else {}
    images, question = row.get("image"), row.get("question")
    listed = [images] if isinstance(images, str) else images if isinstance(images, list) else []
    if not listed or not all(isinstance(one, str) for one in [*listed, question]):
        raise TrainError(
            f'{where}: expected {{"image": a path or a list of paths, "question": a text}}, found '
            f"{line[:60]!r}"
        )
    return Asked(tuple(str(folder / one) for one in listed), str(question))


def check_files(asked: Sequence[Asked]) -> None:
    """Raises TrainError for the first image that is no file, before anything is loaded."""
    for file in dict.fromkeys(file for one in asked for file in one.images):
        if not Path(file).is_file():
            raise TrainError(f"image {file}: no such file")


def read_answers(path: Path) -> list[str]:
    """The answers of a file, one a line, each once. Raises TrainError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainError(f"--answers {path}: cannot be read ({error})") from None
    answers = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if len(answers) < 2:
        raise TrainError(
            f"--answers {path}: {len(answers)} answers; expected two at least, a line each"
        )
    return answers
