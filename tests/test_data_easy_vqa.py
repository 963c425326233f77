"""easy-VQA: the installed package's figures, derived types, bad entries."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from data.easy_vqa import EasyVqa, answer_type, question_type
from data.example import DatasetError, Problem


def written(root: Path, rows: object) -> EasyVqa:
    (root / "train").mkdir(parents=True)
    (root / "train" / "questions.json").write_text(json.dumps(rows))
    return EasyVqa(root)


def test_the_installed_package_holds_the_published_counts() -> None:
    dataset = EasyVqa()
    assert dataset.splits() == ["train", "test"]
    train, test = (list(dataset.examples(split)) for split in ("train", "test"))
    assert (len(train), len(test)) == (38575, 9673)
    assert len({example.images for example in train}) == 4000
    assert len({example.images for example in test}) == 1000
    assert [example.question_id for example in test] == list(range(9673))
    first = test[0]
    assert (first.question, first.answer, first.answers) == (
        "what is the red shape?",
        "triangle",
        ("triangle",),
    )
    assert (dataset.root / first.images[0]).is_file()
    assert max(Counter(example.answer for example in test).values()) / 9673 == pytest.approx(
        0.373, abs=0.001
    )
    assert {example.answer_type for example in test} == {"yes/no", "color", "shape"}


@pytest.mark.parametrize(
    ("question", "answer", "types"),
    [
        ("is there a red shape?", "no", ("is there", "yes/no")),
        ("is no circle present?", "yes", ("is there not", "yes/no")),
        ("is there not a circle?", "yes", ("is there not", "yes/no")),
        ("what is the color of the circle?", "teal", ("what color", "color")),
        ("what is the teal shape?", "circle", ("what shape", "shape")),
        ("what is it made of?", "wood", ("what shape", "other")),
    ],
)
def test_types_are_derived(question: str, answer: str, types: tuple[str, str]) -> None:
    assert (question_type(question, answer), answer_type(answer)) == types


def test_a_missing_annotation_is_told_or_raised(tmp_path: Path) -> None:
    dataset = written(tmp_path, [["what shape?", "circle", 0], ["what color?", 1], ["what", "a"]])
    with pytest.raises(DatasetError, match="missing annotation of question 1"):
        list(dataset.examples("train"))
    problems: list[Problem] = []
    assert [example.question_id for example in dataset.examples("train", problems)] == [0]
    assert [problem.question_id for problem in problems] == [1, 2]
    assert "entry 2 is" in problems[1].what


def test_a_file_of_another_form_is_one_clear_line(tmp_path: Path) -> None:
    dataset = written(tmp_path, {"questions": []})
    with pytest.raises(DatasetError, match=r"found a JSON dict, expected a list of \[question"):
        list(dataset.examples("train"))


def test_a_missing_package_names_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DatasetError, match=r"pip install easy-vqa.*--root"):
        EasyVqa()


def test_an_unknown_split_lists_those_found(tmp_path: Path) -> None:
    dataset = written(tmp_path, [])
    with pytest.raises(DatasetError, match=r"no split 'val' in .*; found train;"):
        list(dataset.examples("val"))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no folder .*nowhere; put the dataset there"):
        EasyVqa(tmp_path / "nowhere").splits()
