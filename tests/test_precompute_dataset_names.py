"""A dataset has a name in the cache, and other data never take its place unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import write_dataset

import vqa_cache
from precompute.__main__ import dataset_name
from precompute.errors import PrecomputeError
from precompute.pipeline import Request, precompute
from precompute.progress import ConsoleReporter


@pytest.mark.parametrize(
    ("given", "dataset", "root", "name"),
    [
        (None, "jsonl", "some/kitchen", "kitchen"),
        (None, "jsonl", "some/kitchen/", "kitchen"),
        (None, "jsonl", None, "jsonl"),
        (None, "kitchen", None, "kitchen"),
        (None, "vqa2", "some/VQAv2", "vqa2"),
        ("garden", "jsonl", "some/kitchen", "garden"),
        ("garden", "vqa2", "some/VQAv2", "garden"),
    ],
)
def test_a_name_is_given_or_the_folders(
    given: str | None, dataset: str, root: str | None, name: str
) -> None:
    assert dataset_name(given, dataset, root) == name


@pytest.mark.parametrize("name", ["my data", "a/b", "..", "-x", "x=1"])
def test_a_name_that_cannot_be_typed_is_refused(name: str) -> None:
    with pytest.raises(PrecomputeError, match=r"dataset name .*; give it one with --name"):
        dataset_name(name, "jsonl", None)


def commit(root: Path, cache: Path, name: str) -> None:
    precompute(Request("jsonl", str(root), str(cache), name=name), ConsoleReporter(quiet=True))


def test_other_data_are_refused_under_a_name_that_is_taken(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    kitchen = write_dataset(tmp_path / "kitchen", train=4, test=0)
    garden = write_dataset(tmp_path / "garden", train=4, test=0, seed=1)
    commit(kitchen, cache, "mine")
    before = vqa_cache.open(cache).split("mine/train").digest
    with pytest.raises(PrecomputeError) as refused:
        commit(garden, cache, "mine")
    folder = cache / "examples/mine/train"
    assert str(refused.value) == (
        f"{cache}: mine/train has 4 images, none of them among the 4 of {garden}; give these data "
        f"a name of their own with --name, or, to replace, delete {folder}"
    )
    assert vqa_cache.open(cache).split("mine/train").digest == before
    commit(garden, cache, "garden")
    assert vqa_cache.open(cache).splits == ["garden/train", "mine/train"]


def test_the_same_pictures_with_other_questions_are_other_data(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "kitchen", train=4, test=0)
    commit(root, tmp_path / "cache", "mine")
    path = root / "train.jsonl"
    path.write_text(path.read_text().replace("big?", "small?"))
    with pytest.raises(PrecomputeError, match=r"has 4 questions, none of them among the 4 of"):
        commit(root, tmp_path / "cache", "mine")


def test_data_that_grew_take_the_place_of_what_they_were(tmp_path: Path) -> None:
    commit(write_dataset(tmp_path / "kitchen", train=4, test=0), tmp_path / "cache", "mine")
    commit(write_dataset(tmp_path / "kitchen", train=8, test=0), tmp_path / "cache", "mine")
    assert len(vqa_cache.open(tmp_path / "cache").split("mine/train")) == 8
