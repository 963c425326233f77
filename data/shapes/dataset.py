"""Writing and reading the dataset `shapes`: VQA v2 JSON, PNG images, and the truth beside them.

Under the root lie, beside the questions, annotations and images that `data.vqa2` describes,

    shapes.json            version, seed and counts; written last, so it means "complete"
    scenes.<split>.json    {"scenes": …, "questions": …}: every shape of every image, and the
                           program and the shapes (by place in the scene) that answer each question

Eight tenths of images and questions are train, a tenth each val and test; no image is in two
splits. The same version, seed and counts give the same bytes, on any number of runs.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from data.example import DatasetError, Example, Problem, majority
from data.json_file import read_json
from data.shapes.annotators import annotate
from data.shapes.questions import Question, ask
from data.shapes.render import png
from data.shapes.scene import SIDE, Scene, make_scene
from data.vqa2 import SUBTYPES, Vqa2

VERSION = 1
SPLITS = ("train", "val", "test")
METADATA = "shapes.json"
UNFINISHED = "shapes.unfinished.json"
LEAST = 3  # images and questions: one for every split


@dataclass(frozen=True, slots=True)
class Making:
    """What decides the bytes of a made dataset."""

    images: int = 5000
    questions: int = 50000
    seed: int = 0

    def record(self) -> dict[str, int]:
        """What `shapes.json` holds."""
        return {"version": VERSION, "image_side": SIDE, **asdict(self)}


class Shapes(Vqa2):
    """Adapter of a made dataset: `vqa2`, once `shapes.json` says that it is complete."""

    name = "shapes"

    def splits(self) -> list[str]:
        require_complete(self.root)
        return super().splits()

    def expected_files(self) -> list[str]:
        files = [METADATA]
        for split in SPLITS:
            subtype = SUBTYPES[split][0]
            files += [*_json_names(split), f"{subtype}/COCO_{subtype}_*.png"]
        return files

    def examples(self, split: str, problems: list[Problem] | None = None) -> Iterator[Example]:
        require_complete(self.root)
        return super().examples(split, problems)


def require_complete(root: Path) -> None:
    """Raise DatasetError unless a finished make lies under `root`."""
    if (root / UNFINISHED).exists():
        raise DatasetError(
            f"dataset shapes: {root} is unfinished: make it again with "
            f"`python -m data make shapes {shlex.quote(str(root))}`"
        )
    if not (root / METADATA).exists():
        raise DatasetError(
            f"dataset shapes: no {METADATA} in {root}; make the dataset with "
            f"`python -m data make shapes {shlex.quote(str(root))}`"
        )


def make(root: Path, making: Making) -> bool:
    """Write the dataset under `root`; False where the same one is there already.

    A mark is written first and removed last, every file gets its name when it is complete. Raises
    DatasetError for too few images or questions, or where `root` holds files of something else.
    """
    for what, number in (("images", making.images), ("questions", making.questions)):
        if number < LEAST:
            raise DatasetError(
                f"dataset shapes: found {number} {what}, expected {LEAST} at least, one a split"
            )
    if _complete(root, making):
        return False
    _clear(root)
    _write_json(root / UNFINISHED, making.record())
    (root / METADATA).unlink(missing_ok=True)
    first_image = first_question = 1
    for split, images, questions in _shares(making):
        scenes = [
            make_scene(image_id, Random(f"shapes {VERSION} seed {making.seed} scene {image_id}"))
            for image_id in range(first_image, first_image + images)
        ]
        _write_images(root / SUBTYPES[split][0], SUBTYPES[split][1], scenes)
        question_ids = range(first_question, first_question + questions)
        _write_questions(root, split, scenes, question_ids, making.seed)
        first_image, first_question = first_image + images, first_question + questions
    if hasattr(os, "sync"):
        os.sync()  # images are many: flushed once, before the metadata says that they are there
    _write_json(root / METADATA, making.record())
    (root / UNFINISHED).unlink()
    return True


def _shares(making: Making) -> Iterator[tuple[str, int, int]]:
    """Every split with its numbers of images and questions."""
    tenths = [max(1, number // 10) for number in (making.images, making.questions)]
    yield "train", making.images - 2 * tenths[0], making.questions - 2 * tenths[1]
    yield "val", tenths[0], tenths[1]
    yield "test", tenths[0], tenths[1]


def _complete(root: Path, making: Making) -> bool:
    if (root / UNFINISHED).exists() or not (root / METADATA).exists():
        return False
    return bool(read_json(root / METADATA, "the record of a made dataset") == making.record())


def _clear(root: Path) -> None:
    """Remove what an earlier make left; refuse a folder that holds anything else instead."""
    root.mkdir(parents=True, exist_ok=True)
    entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    if entries and not any((root / name).exists() for name in (METADATA, UNFINISHED)):
        raise DatasetError(
            f"dataset shapes: {root} holds {entries[0].name} and no {METADATA}; expected an empty "
            "folder or an earlier make; name another folder"
        )
    for split in SPLITS:
        # only what a make writes: the rest is the user's
        if (root / SUBTYPES[split][0]).is_dir():
            shutil.rmtree(root / SUBTYPES[split][0])
        for name in _json_names(split):
            (root / name).unlink(missing_ok=True)


def _json_names(split: str) -> tuple[str, str, str]:
    subtype = SUBTYPES[split][0]
    return (
        f"v2_OpenEnded_mscoco_{subtype}_questions.json",
        f"v2_mscoco_{subtype}_annotations.json",
        f"scenes.{split}.json",
    )


def _write_images(folder: Path, subtype: str, scenes: list[Scene]) -> None:
    folder.mkdir()
    for scene in scenes:
        path = folder / f"COCO_{subtype}_{scene.image_id:012d}.png"
        part = path.with_suffix(".part")
        part.write_bytes(png(scene))
        part.replace(path)


def _write_questions(
    root: Path, split: str, scenes: list[Scene], question_ids: range, seed: int
) -> None:
    asked: dict[int, set[str]] = {scene.image_id: set() for scene in scenes}
    questions, annotations, programs = [], [], []
    for ordinal, question_id in enumerate(question_ids):
        scene = scenes[ordinal % len(scenes)]
        rng = Random(f"shapes {VERSION} seed {seed} question {question_id}")
        question = ask(scene, rng, asked[scene.image_id])
        asked[scene.image_id].add(question.text)
        ids = {"question_id": question_id, "image_id": scene.image_id}
        questions.append({**ids, "question": question.text})
        annotations.append(_annotation(ids, question, rng))
        programs.append({**ids, "program": question.program, "shapes": list(question.shapes)})
    subtype = SUBTYPES[split][0]
    info = {"description": "vqa-cache shapes", "version": str(VERSION), "seed": seed}
    common = {"info": info, "data_type": "mscoco", "data_subtype": subtype}
    contents: tuple[dict[str, Any], ...] = (
        {**common, "task_type": "Open-Ended", "questions": questions},
        {**common, "annotations": annotations},
        {"info": info, "scenes": [asdict(scene) for scene in scenes], "questions": programs},
    )
    for name, content in zip(_json_names(split), contents, strict=True):
        _write_json(root / name, content)


def _annotation(ids: dict[str, int], question: Question, rng: Random) -> dict[str, Any]:
    answers = annotate(question.answer, rng)
    return {
        **ids,
        "question_type": question.question_type,
        "answer_type": question.answer_type,
        "multiple_choice_answer": majority(answer for answer, _ in answers),
        "answers": [
            {"answer": answer, "answer_confidence": confidence, "answer_id": number}
            for number, (answer, confidence) in enumerate(answers, start=1)
        ],
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    with open(part, "w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(content, separators=(",", ":")) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
