"""Photographs to encode: JPEGs of 640x480 at quality 90, seeded crops of scikit-learn's two
photographs, enlarged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT, QUALITY = 640, 480, 90
_SMALLEST, _LARGEST = 160, 480  # a crop's width; its height is three quarters of it


def write_photographs(root: Path, count: int, seed: int = 0) -> list[Path]:
    """A `jsonl` dataset of one split with a question an image; the images' files, all distinct."""
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    draw = np.random.default_rng(seed)
    root.mkdir(parents=True)
    files = []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        width = int(draw.integers(_SMALLEST, _LARGEST))
        height = width * HEIGHT // WIDTH
        left = int(draw.integers(photograph.width - width))
        top = int(draw.integers(photograph.height - height))
        crop = photograph.crop((left, top, left + width, top + height))
        files.append(root / f"{number:05}.jpg")
        crop.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(files[-1], quality=QUALITY)
    lines = [json.dumps({"image": file.name, "question": "what is this?"}) for file in files]
    (root / "train.jsonl").write_text("\n".join(lines) + "\n")
    return files
