"""Names of the datasets and where their adapters live; a new dataset is one more line here."""

from __future__ import annotations

import importlib
from pathlib import Path

from data.example import Dataset, DatasetError

DATASETS: dict[str, str] = {
    "easy_vqa": "data.easy_vqa:EasyVqa",
    "jsonl": "data.jsonl:Jsonl",
    "shapes": "data.shapes.dataset:Shapes",
    "vqa2": "data.vqa2:Vqa2",
}


def open_dataset(name: str, root: str | Path | None = None) -> Dataset:
    """The adapter of dataset `name` over the folder `root`.

    Without `root`, easy_vqa reads its installed package and every other dataset `datasets/<name>`.
    A folder with `<split>.jsonl` files is a dataset of any name. Raises DatasetError for an unknown
    name, listing the known ones.
    """
    if name not in DATASETS:
        folder = Path("datasets") / name if root is None else Path(root)
        if not any(folder.glob("*.jsonl")):
            raise DatasetError(
                f"unknown dataset {name!r}; known: {', '.join(sorted(DATASETS))}, or a folder "
                f"{folder} with your own <split>.jsonl files"
            )
        name, root = "jsonl", folder
    module, factory = DATASETS[name].split(":")
    dataset: Dataset = getattr(importlib.import_module(module), factory)(root)
    return dataset
