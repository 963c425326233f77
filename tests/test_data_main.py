"""The command line: check, tree and make, their exit codes and their one line on stderr."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from data.__main__ import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A jsonl dataset of two splits with two images each."""
    for split, value in (("train", 0), ("test", 100)):
        lines = []
        for number in range(2):
            name = f"{split}{number}.jpg"
            Image.new("RGB", (32, 32), (value + number * 40, 0, 0)).save(tmp_path / name)
            lines.append({"image": name, "question": "what?", "answer": str(number)})
        text = "\n".join(json.dumps(line) for line in lines)
        (tmp_path / f"{split}.jsonl").write_text(text)
    return tmp_path


def failed(result: Result) -> str:
    """The single line on stderr of a command that exited 1."""
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_check_counts_and_finds_nothing_wrong(photos: Path) -> None:
    result = run("check", "jsonl", photos)
    assert result.exit_code == 0
    assert (
        "train: 2 questions (1 distinct), 2 distinct answers, 2 images (2 opened), 0 problems"
        in result.output
    )
    assert "nothing wrong" in result.output


def test_check_opens_no_more_than_the_limit(photos: Path) -> None:
    (photos / "train1.jpg").unlink()
    assert run("check", "jsonl", photos, "--limit", 1).exit_code == 0
    assert "(1 opened)" in run("check", "jsonl", photos, "--limit", 1).output


def test_check_names_missing_and_truncated_images(photos: Path) -> None:
    (photos / "train0.jpg").unlink()
    content = (photos / "train1.jpg").read_bytes()
    (photos / "train1.jpg").write_bytes(content[: len(content) - 40])
    (photos / "test0.jpg").write_text("no image")
    result = run("check", "jsonl", photos)
    assert "3 things wrong" in failed(result)
    assert "train0.jpg: missing" in result.stdout
    assert "train1.jpg: cannot be decoded (" in result.stdout
    assert "test0.jpg: not an image that Pillow can read" in result.stdout


def test_check_lists_the_adapters_problems(photos: Path) -> None:
    with open(photos / "train.jsonl", "a") as file:
        file.write('\n{"image": "train0.jpg", "question": "and?"}' * 12)
    result = run("check", "jsonl", photos)
    assert "12 things wrong" in failed(result)
    assert "train.jsonl:3: missing annotation" in result.stdout
    assert "… and 2 more" in result.stdout


def test_check_finds_images_that_splits_share_by_content(photos: Path) -> None:
    (photos / "test0.jpg").write_bytes((photos / "train1.jpg").read_bytes())
    result = run("check", "jsonl", photos)
    assert "train and test share 1 images" in result.stdout
    assert "1 things wrong" in failed(result)


def test_check_finds_images_that_splits_share_by_path(photos: Path) -> None:
    (photos / "test.jsonl").write_text((photos / "train.jsonl").read_text())
    assert "train and test share 2 images" in run("check", "jsonl", photos, "--limit", 0).stdout


def test_check_of_an_unlabelled_split(photos: Path) -> None:
    (photos / "test.jsonl").write_text('{"image": "test0.jpg", "question": "what?"}')
    result = run("check", "jsonl", photos)
    assert result.exit_code == 0
    assert "test: 1 questions (1 distinct), unlabelled, 1 images" in result.stdout


def test_check_names_keys_that_are_not_read_and_what_they_leave_missing(photos: Path) -> None:
    line = '{"image": "train0.jpg", "question": "what?", "label": "cat"}'
    (photos / "train.jsonl").write_text(f"{line}\n{line}\n")
    result = run("check", "jsonl", photos)
    assert "1 things wrong" in failed(result)
    assert "train: no answers, so nothing can be trained on it" in result.stdout
    told = 'train.jsonl: key "label" of 2 lines is not read; known: image, question, answer, '
    assert told in result.stdout


def test_check_refuses_a_split_without_a_line(photos: Path) -> None:
    (photos / "train.jsonl").write_text("\n")
    result = run("check", "jsonl", photos)
    assert "1 things wrong" in failed(result)
    assert "train: no questions, expected some" in result.stdout


def test_check_tells_answers_that_differ_in_spelling_alone(photos: Path) -> None:
    lines = [
        json.dumps({"image": "train0.jpg", "question": "is it?", "answer": answer})
        for answer in ("yes", "Yes", "yes ", "YES", "no")
    ]
    (photos / "train.jsonl").write_text("\n".join(lines))
    result = run("check", "jsonl", photos)
    assert result.exit_code == 0
    assert (
        "note: train: 4 answers are 1 in other spellings ('yes', 'Yes', 'yes ', 'YES'); "
        "answers.normalise=vqa makes one class of each"
    ) in result.stdout
    assert "spellings" not in result.stdout.partition("test:")[2]


def test_an_unknown_dataset_is_one_line(tmp_path: Path) -> None:
    assert "unknown dataset 'coco'; known: a_okvqa" in failed(run("check", "coco", tmp_path))


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    assert f"no split in {tmp_path}" in failed(run("check", "vqa2", tmp_path))


def test_wrong_usage_exits_2() -> None:
    assert run("check").exit_code == 2
    assert run("paint").exit_code == 2
    assert run("make", "shapes", "--images", "many").exit_code == 2


def test_tree_tells_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "train2014").mkdir()
    (tmp_path / "train2014" / "COCO_train2014_000000000001.jpg").touch()
    (tmp_path / "v2_mscoco_val2014_annotations.json").touch()
    result = run("tree", "vqa2", tmp_path)
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert lines[0] == f"{tmp_path}/"
    assert "1 files train2014/COCO_train2014_*.jpg" in lines
    assert "found v2_mscoco_val2014_annotations.json" in lines
    assert "missing v2_OpenEnded_mscoco_train2014_questions.json" in lines


def test_tree_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    result = run("tree", "shapes", tmp_path / "absent")
    assert result.exit_code == 0
    assert "found" not in result.output


def test_make_then_check(tmp_path: Path) -> None:
    made = run("make", "shapes", tmp_path / "s", "--images", 20, "--questions", 50, "--seed", 1)
    assert made.exit_code == 0
    assert "made 20 images and 50 questions" in made.output
    again = run("make", "shapes", tmp_path / "s", "--images", 20, "--questions", 50, "--seed", 1)
    assert "already made" in again.output
    result = run("check", "shapes", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert "train: 40 questions" in result.output


def test_make_into_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "file" in failed(run("make", "shapes", tmp_path / "file"))
