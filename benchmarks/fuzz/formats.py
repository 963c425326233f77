"""Every dataset's own files in miniature, broken one at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from benchmarks.fuzz.mutations import changed_bytes, changed_json
from benchmarks.inputs.miniatures import BUILDERS
from data.check import as_object, check_dataset
from data.example import Dataset, DatasetError, Problem
from data.gqa import Gqa
from data.gqa_scores import gqa_scores
from data.images import ImageError, open_image
from data.registry import open_dataset
from data.submission import submission

Attempt = Callable[[Random], None]
_PICTURES = (".jpg", ".png")
_CHOICES = {key: {"valid": ["red"], "plausible": ["red"]} for key in ("07333408", "07333409")}


def prepare_datasets(folder: Path) -> Attempt:
    """One annotation file of a dataset is broken, or gone; it is read in one of the ways that read
    a dataset."""
    for name, build in BUILDERS.items():
        build(folder / name)
        rows = [{"question_id": key, "answer": "red"} for key in (*_CHOICES, 10, 11)]
        (folder / name / "predictions.json").write_text(json.dumps(rows))
    (folder / "gqa" / "train_choices.json").write_text(json.dumps(_CHOICES))
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in _PICTURES and not path.name.startswith("._")
    )
    contents = {path: path.read_bytes() for path in paths}
    by_dataset = {
        name: [path for path in paths if path.is_relative_to(folder / name)] for name in BUILDERS
    }

    def attempt(draw: Random) -> None:
        name = draw.choice(list(BUILDERS))
        path = draw.choice(by_dataset[name])
        try:
            if draw.random() < 0.02:
                path.unlink()
            else:
                path.write_bytes(_broken(draw, contents[path], list(contents.values())))
            _read(draw, name, open_dataset(name, folder / name), folder / name)
        finally:
            path.write_bytes(contents[path])

    return attempt


def _broken(draw: Random, content: bytes, others: list[bytes]) -> bytes:
    """JSON is as often whole and wrong, a whole file or a line of it."""
    if draw.random() < 0.5:
        return changed_bytes(draw, content, others)
    lines = content.splitlines()
    place = draw.randrange(len(lines))
    with suppress(ValueError):
        lines[place] = json.dumps(changed_json(draw, json.loads(lines[place]))).encode()
        return b"\n".join(lines)
    return changed_bytes(draw, content, others)


def _read(draw: Random, name: str, dataset: Dataset, root: Path) -> None:
    kind = draw.randrange(8)
    if kind == 0:
        as_object(check_dataset(name, dataset, 2))
        return
    split = draw.choice(["train", *dataset.splits()])
    if kind == 1:
        submission(name, dataset, split, root / "predictions.json")
    elif kind == 2 and isinstance(dataset, Gqa):
        gqa_scores(dataset, split, root / "predictions.json")
    problems: list[Problem] | None = draw.choice(([], None))
    dataset.remarks(split)
    with suppress(DatasetError):
        for example in dataset.examples(split, problems):
            for image in example.images:
                with suppress(ImageError):
                    open_image(str(root / image))
