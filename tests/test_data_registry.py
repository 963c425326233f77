"""The table of datasets: every entry opens and keeps the adapters' promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from data.example import DatasetError, majority, ordered_splits
from data.registry import DATASETS, open_dataset


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_dataset_opens_by_its_name(name: str, tmp_path: Path) -> None:
    dataset = open_dataset(name, tmp_path)
    assert dataset.name == name
    assert dataset.root == tmp_path
    assert dataset.expected_files()
    assert not any(file.startswith("/") for file in dataset.expected_files())


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_a_missing_root_is_one_clear_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"dataset {name}: .*absent") as raised:
        open_dataset(name, tmp_path / "absent").splits()
    assert "\n" not in str(raised.value)


def test_the_default_root_is_named_after_the_dataset() -> None:
    assert open_dataset("vqa2").root == Path("datasets/vqa2")
    assert open_dataset("jsonl").root == Path("datasets/jsonl")
    assert open_dataset("shapes").root == Path("datasets/shapes")


def test_an_unknown_name_lists_the_known_ones() -> None:
    known = f"known: {', '.join(sorted(DATASETS))}, or a folder"
    with pytest.raises(DatasetError, match=f"unknown dataset 'vqa3'; {known}"):
        open_dataset("vqa3")


def test_a_folder_of_ones_own_data_is_a_dataset_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "datasets" / "kitchen"
    own.mkdir(parents=True)
    (own / "train.jsonl").write_text('{"image": "a.jpg", "question": "is it?", "answer": "no"}')
    monkeypatch.chdir(tmp_path)
    for dataset in (open_dataset("kitchen"), open_dataset("kitchen", own)):
        assert [example.answer for example in dataset.examples("train")] == ["no"]
    with pytest.raises(DatasetError, match="a folder datasets/garden with your own"):
        open_dataset("garden")


def test_opening_a_dataset_imports_no_pillow() -> None:
    code = (
        "import sys\nfrom data.registry import DATASETS, open_dataset\n"
        "for name in DATASETS: open_dataset(name, '.')\n"
        "print('PIL' in sys.modules or 'numpy' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_majority_is_the_first_of_the_most_frequent() -> None:
    assert majority(["b", "a", "a", "b", "c"]) == "b"
    assert majority(["c", "a", "a"]) == "a"
    assert majority(["", ""]) == ""


def test_splits_are_ordered() -> None:
    assert ordered_splits(["zoo", "test", "extra", "train", "val", "test"]) == [
        "train",
        "val",
        "test",
        "extra",
        "zoo",
    ]
