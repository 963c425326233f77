"""VQA's official JSON at any size, with files in place of its images that differ in content."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.inputs.sizes import Sizes

ANNOTATORS = 10
_AGREEING = 8  # of them, on average
_SUBTYPES = {"train": "train2014", "val": "val2014"}
_KINDS = ("yes/no", "number", "other")


def write_official_files(root: Path, sizes: Sizes, seed: int = 0) -> None:
    """`sizes` as VQA v2's files of train and val; an image is a few bytes that are no picture."""
    draw = np.random.default_rng(seed)
    texts = [f'"What is beside thing {n} there?"' for n in range(sizes.distinct_questions)]
    answers = [f'"answer {number}"' for number in range(sizes.answers)]
    for split, subtype in _SUBTYPES.items():
        images, count = sizes.images[split], sizes.questions[split]
        folder = root / subtype
        folder.mkdir(parents=True)
        for image in range(images):
            (folder / f"COCO_{subtype}_{image:012d}.jpg").write_bytes(f"{split} {image}".encode())
        about = np.sort(draw.integers(0, images, count)).tolist()
        asked = draw.integers(0, len(texts), count).tolist()
        chosen = np.minimum(draw.zipf(1.3, (count, 1 + ANNOTATORS)) - 1, len(answers) - 1)
        alone = draw.random((count, ANNOTATORS)) >= _AGREEING / ANNOTATORS
        given = np.where(alone, chosen[:, 1:], chosen[:, :1]).tolist()
        names = (
            root / f"v2_OpenEnded_mscoco_{subtype}_questions.json",
            root / (f"v2_mscoco_{subtype}_annotations.json"),
        )
        with names[0].open("w") as questions, names[1].open("w") as annotations:
            questions.write('{"info": {}, "task_type": "Open-Ended", "questions": [')
            annotations.write('{"info": {}, "annotations": [')
            for number, (image, text) in enumerate(zip(about, asked, strict=True)):
                between, key = ", " if number else "", f'"question_id": {image * 1000 + number}'
                asks = f'"image_id": {image}, "question": {texts[text]}, {key}'
                questions.write(f"{between}{{{asks}}}")
                listed = ", ".join(
                    f'{{"answer": {answers[answer]}, "answer_confidence": "yes", "answer_id": {n}}}'
                    for n, answer in enumerate(given[number], start=1)
                )
                annotations.write(
                    f'{between}{{"question_type": "what is", "multiple_choice_answer": '
                    f'{answers[chosen[number, 0]]}, "answers": [{listed}], "image_id": {image}, '
                    f'"answer_type": "{_KINDS[text % 3]}", {key}}}'
                )
            questions.write("]}")
            annotations.write("]}")
