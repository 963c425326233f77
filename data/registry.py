"""Names of the datasets and where their adapters live; a new dataset is one more line here."""

from __future__ import annotations

import importlib
from pathlib import Path

from data.example import Dataset, DatasetError

DATASETS: dict[str, str] = {
    "a_okvqa": "data.a_okvqa:AOkVqa",
    "clevr": "data.clevr:Clevr",
    "coco_qa": "data.coco_qa:CocoQa",
    "csv": "data.csv_file:Csv",
    "daquar": "data.daquar:Daquar",
    "daquar_37": "data.daquar:Daquar37",
    "easy_vqa": "data.easy_vqa:EasyVqa",
    "gqa": "data.gqa:Gqa",
    "gqa_all": "data.gqa:GqaAll",
    "jsonl": "data.jsonl:Jsonl",
    "nlvr": "data.nlvr:Nlvr",
    "nlvr2": "data.nlvr2:Nlvr2",
    "ok_vqa": "data.ok_vqa:OkVqa",
    "parquet": "data.parquet:Parquet",
    "shapes": "data.shapes.dataset:Shapes",
    "slake": "data.slake:Slake",
    "slake_en": "data.slake:SlakeEnglish",
    "text_vqa": "data.text_vqa:TextVqa",
    "vizwiz": "data.vizwiz:VizWiz",
    "vqa1": "data.vqa2:Vqa1",
    "vqa2": "data.vqa2:Vqa2",
    "vqa_cp": "data.vqa_cp:VqaCp",
    "vqa_rad": "data.vqa_rad:VqaRad",
    "webdataset": "data.webdataset:Webdataset",
}

# formats of one's own data: what is in such a folder is called as the folder
OWN = ("jsonl", "csv", "parquet", "webdataset")


def open_dataset(name: str, root: str | Path | None = None) -> Dataset:
    """The adapter of dataset `name` over the folder `root`.

    Without `root`, easy_vqa reads its installed package and every other dataset `datasets/<name>`.
    A folder of one's own data, in one of the formats OWN, is a dataset of any name. Raises
    DatasetError for an unknown name, listing the known ones. `datasets/<name>.toml` is a view of
    another dataset (`data.view`).
    """
    if name not in DATASETS:
        view = view_file(name)
        if view.is_file():
            return _view(view, root)
        folder = Path("datasets") / name if root is None else Path(root)
        for own in OWN:
            if folder.is_dir() and (dataset := _adapter(own, folder)).splits():
                return dataset
        raise DatasetError(
            f"unknown dataset {name!r}; known: {', '.join(sorted(DATASETS))}, or a folder "
            f"{folder} with your own <split>.jsonl files (or csv, parquet, webdataset), or a view "
            f"{view}"
        )
    return _adapter(name, root)


def view_file(name: str) -> Path:
    """Where a view of that name would be."""
    return Path("datasets") / f"{name}.toml"


def _view(path: Path, root: str | Path | None) -> Dataset:
    from data.view import View, read_view

    settings = read_view(path)
    if settings["from"] not in DATASETS:
        raise DatasetError(
            f"{path}: from = {settings['from']!r}; known: {', '.join(sorted(DATASETS))}"
        )
    return View(path, _adapter(settings["from"], root or settings["root"]), settings)


def _adapter(name: str, root: str | Path | None) -> Dataset:
    module, factory = DATASETS[name].split(":")
    dataset: Dataset = getattr(importlib.import_module(module), factory)(root)
    return dataset
