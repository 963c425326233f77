"""Every dataset of the table in miniature: counts, ids, answers, pictures, and bad files."""

from __future__ import annotations

import json
import tarfile
from io import BytesIO
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from miniatures import MINIATURES

from benchmarks.inputs.miniatures import (
    BUILDERS,
    daquar,
    gqa_rows,
    picture,
    png,
    write_json,
    write_lines,
)
from data.__main__ import main
from data.example import Dataset, DatasetError, Problem
from data.images import ImageError, open_image
from data.records import Malformed
from data.registry import DATASETS, open_dataset

BUILT = sorted(set(DATASETS) - {"shapes"})  # which has a generator, and tests, of its own


def opened(name: str, root: Path) -> Dataset:
    BUILDERS[name](root)
    return open_dataset(name, root)


def test_every_dataset_has_a_miniature() -> None:
    assert sorted(MINIATURES) == BUILT


@pytest.mark.parametrize("name", BUILT)
def test_counts_ids_answers_and_types(name: str, tmp_path: Path) -> None:
    expected, dataset = MINIATURES[name], opened(name, tmp_path)
    examples = {split: list(dataset.examples(split)) for split in dataset.splits()}
    assert {split: len(found) for split, found in examples.items()} == expected.counts
    assert [s for s in examples if not dataset.annotated(s)] == list(expected.unlabelled)
    first = examples[next(iter(examples))][0]
    assert (
        first.question_id, first.image_ids, first.answer, first.answers,
        first.question_type, first.answer_type,
    ) == expected.first  # fmt: skip
    for split in expected.unlabelled:
        assert {(e.answer, e.answers) for e in examples[split]} == {(None, ())}


@pytest.mark.parametrize("name", BUILT)
def test_every_picture_opens(name: str, tmp_path: Path) -> None:
    dataset = opened(name, tmp_path)
    for split in dataset.splits():
        for example in dataset.examples(split):
            for image in example.images:
                assert open_image(str(tmp_path / image)).size == (8, 8)


@pytest.mark.parametrize("name", BUILT)
def test_the_tree_names_what_is_there(name: str, tmp_path: Path) -> None:
    dataset = opened(name, tmp_path)
    assert any(list(tmp_path.glob(pattern)) for pattern in dataset.expected_files())
    result = CliRunner().invoke(main, ["tree", name, str(tmp_path)])
    assert "found" in result.output or "files" in result.output


@pytest.mark.parametrize("name", BUILT)
def test_without_its_files_the_line_names_the_tree(name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["check", name, str(tmp_path)])
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert f"`python -m data tree {name} {tmp_path}` prints the files expected" in line


@pytest.mark.parametrize("name", BUILT)
def test_a_truncated_file_is_one_line_with_its_name(name: str, tmp_path: Path) -> None:
    dataset = opened(name, tmp_path)
    path = tmp_path / MINIATURES[name].questions
    content = path.read_bytes()
    kept = {".tar": 700, ".csv": len(content) - 12}  # within a member, within a row
    path.write_bytes(content[: kept.get(path.suffix, len(content) * 2 // 3)])
    with pytest.raises(DatasetError, match=f"{path.name.split('.')[0]}|{path.parent}") as raised:
        list(dataset.examples(next(iter(MINIATURES[name].counts))))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", sorted(set(BUILT) - {"parquet", "webdataset"}))
def test_a_malformed_row_is_told_and_left_out(name: str, tmp_path: Path) -> None:
    expected, dataset = MINIATURES[name], opened(name, tmp_path)
    path = tmp_path / expected.questions
    old, new, told = expected.replaced
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    split = next(iter(expected.counts))
    problems: list[Problem] = []
    found = list(dataset.examples(split, problems))
    assert len(found) == expected.counts[split] - 1
    assert any(told in problem.what for problem in problems)
    with pytest.raises(DatasetError, match=told) as raised:
        list(dataset.examples(split))
    assert "\n" not in str(raised.value)


# ---------------------------------------------------------------- oddities of one format


def test_a_question_id_that_occurs_twice_is_told(tmp_path: Path) -> None:
    rows = json.dumps(gqa_rows("1"))[:-1] + ", " + json.dumps(gqa_rows("1", "2"))[1:]
    (tmp_path / "val_balanced_questions.json").write_text(rows)
    problems: list[Problem] = []
    found = list(open_dataset("gqa", tmp_path).examples("val", problems))
    assert [example.question_id for example in found] == ["1", "2"]
    assert "question id 1 occurs twice" in problems[0].what


def test_coco_qa_finds_images_of_either_split(tmp_path: Path) -> None:
    first, second = opened("coco_qa", tmp_path).examples("train")
    assert first.images == ("train2014/COCO_train2014_000000000007.jpg",)
    assert second.images == ("val2014/COCO_val2014_000000000008.jpg",)


def test_coco_qa_refuses_columns_of_different_lengths(tmp_path: Path) -> None:
    dataset = opened("coco_qa", tmp_path)
    (tmp_path / "train" / "answers.txt").write_text("cat\n")
    with pytest.raises(DatasetError, match=r"questions.txt 2, answers.txt 1, .* belong together"):
        list(dataset.examples("train"))


def test_an_empty_line_within_coco_qa_shifts_nothing(tmp_path: Path) -> None:
    dataset = opened("coco_qa", tmp_path)
    (tmp_path / "train" / "answers.txt").write_text("\ntwo\n")
    problems: list[Problem] = []
    [found] = dataset.examples("train", problems)
    assert (found.question, found.answer) == ("how many", "two")
    assert "answers.txt has an empty line" in problems[0].what


def test_a_missing_line_costs_daquar_one_question(tmp_path: Path) -> None:
    daquar(tmp_path)
    path = tmp_path / "qa.894.raw.train.format_triple"
    path.write_text(path.read_text().replace("what is on the desk ?\n", ""))
    problems: list[Problem] = []
    [found] = open_dataset("daquar", tmp_path).examples("train", problems)
    assert (found.question, found.answer) == ("what colour ?", "red")
    assert 'found 2 lines up to "image3"' in problems[0].what


def test_daquar_as_a_table(tmp_path: Path) -> None:
    for name in ("data_train.csv", "data_eval.csv"):
        text = 'question,answer,image_id\nwhat is it,"lamp, book",image7\n'
        (tmp_path / name).write_text(text)
    picture(tmp_path / "images" / "image7.png")
    dataset = open_dataset("daquar", tmp_path)
    assert dataset.splits() == ["train", "test"]
    [found] = dataset.examples("test")
    assert (found.answer, found.images) == ("lamp, book", ("images/image7.png",))
    (tmp_path / "data_eval.csv").write_text("question,answer\nq,a\n")
    with pytest.raises(DatasetError, match=r"data_eval\.csv: no column image_id; found: question"):
        list(dataset.examples("test"))


def test_daquar_as_pairs(tmp_path: Path) -> None:
    pairs = ["what is on the desk in the image3 ?", "lamp", "what is in the image4 ?", "bed"]
    write_lines(tmp_path / "all_qa_pairs.txt", *pairs)
    dataset = open_dataset("daquar", tmp_path)
    assert dataset.splits() == ["all"]
    found = [(e.question, e.answer, e.image_ids) for e in dataset.examples("all")]
    assert found == [
        ("what is on the desk", "lamp", ("image3",)),
        ("what is", "bed", ("image4",)),
    ]
    write_lines(tmp_path / "train_images_list.txt", "image4")
    write_lines(tmp_path / "test_images_list.txt", "image3")
    assert dataset.splits() == ["train", "test"]
    assert [e.answer for e in dataset.examples("train")] == ["bed"]


def test_vqa_rad_keeps_test_questions_out_of_train_and_types_answers(tmp_path: Path) -> None:
    [test] = opened("vqa_rad", tmp_path).examples("test")
    assert (test.question_id, test.answer) == ("2", "12")


def test_older_names_of_vizwiz_and_twelve_digits(tmp_path: Path) -> None:
    row = {
        "image": "VizWiz_val_000000000001.jpg",
        "question": "what?",
        "answers": [],
        "answerable": 0,
    }
    write_json(
        tmp_path / "Annotations" / "VizWiz_val.json", [{**row, "answers": [{"answer": "x"}]}]
    )
    picture(tmp_path / "val" / "VizWiz_val_000000000001.jpg")
    [found] = open_dataset("vizwiz", tmp_path).examples("val")
    assert found.images == ("val/VizWiz_val_000000000001.jpg",)
    assert (found.answers, found.question_type) == (("x",), "unanswerable")


def test_an_image_of_coco_2017_stands_for_that_of_2014(tmp_path: Path) -> None:
    [found] = opened("a_okvqa", tmp_path).examples("train")
    assert found.images == ("val2017/000000000009.jpg",)


@pytest.mark.parametrize(
    ("name", "key", "row"),
    [
        ("clevr", "image_filename", {"question_index": 0}),
        ("gqa", "imageId", {}),
        ("text_vqa", "image_id", {"question_id": 0}),
        ("vizwiz", "image", {}),
        ("vqa_rad", "image_name", {"qid": 0}),
    ],
)
def test_a_picture_is_named_without_a_folder(
    name: str, key: str, row: dict[str, object], tmp_path: Path
) -> None:
    entry = {**row, "question": "what?", key: "../a.png"}
    given = {"clevr": entry, "gqa": ("1", entry)}.get(name, (entry, None))
    with pytest.raises(Malformed) as error:
        open_dataset(name, tmp_path).record(given, "train")  # type: ignore[attr-defined]
    assert str(error.value) == f'{key} is "../a.png", expected a file\'s name'


def test_one_table_of_several_splits(tmp_path: Path) -> None:
    lines = [
        "split,image,question,answer,note",
        "train,a.png,q,x|y,",
        "val,a.png,q,,",
        "val,b,q,z,",
    ]
    write_lines(tmp_path / "all.csv", *lines)
    dataset = open_dataset("csv", tmp_path)
    assert dataset.splits() == ["train", "val"]
    assert [e.answer for e in dataset.examples("train")] == ["x|y"]
    assert "columns 'note' are not read; known: image" in dataset.remarks("val")[0]
    with pytest.raises(DatasetError, match=r"all\.csv:3: missing annotation"):
        list(dataset.examples("val"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"image,text\na,b\n", "no column question in its first line; found: image, text"),
        (b"image,question\na,b,c\n", "train.csv:2: more cells than columns"),
        (b"image,question\na,\xff\n", "byte 17 is not UTF-8; save it as UTF-8"),
        (b'image,question\na,"b"c\n', "not a table: "),
    ],
)
def test_a_table_that_is_none_is_one_line(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=told):
        list(open_dataset("csv", tmp_path).examples("train"))


# ---------------------------------------------------------------- pictures in other files


def test_parquet_rows_with_paths_lists_and_bytes(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    cells = {
        "struct": [{"bytes": None, "path": "a.png"}, {"bytes": None, "path": "a.png"}],
        "mixed": [{"bytes": None, "path": "a.png"}, {"bytes": png("blue"), "path": None}],
        "bytes": [png(), png("blue")],
        "text": ["a.png", "a.png"],
        "list": [[{"bytes": png(), "path": "x"}, {"bytes": png("blue"), "path": "y"}]] * 2,
    }
    for split, images in cells.items():
        rows = [{"image": cell, "question": "what?", "answer": ["red"]} for cell in images]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"{split}.parquet")
    dataset = open_dataset("parquet", tmp_path)
    found = {split: [e.images for e in dataset.examples(split)] for split in dataset.splits()}
    assert found["struct"] == found["text"] == [("a.png",)] * 2
    assert found["mixed"] == [("a.png",), ("mixed.parquet::image/1",)]
    assert found["list"][1] == ("list.parquet::image/1/0", "list.parquet::image/1/1")
    for places in found.values():
        for images in places:
            colours = [open_image(str(tmp_path / i)).getpixel((0, 0)) for i in images]
            assert set(colours) <= {(255, 0, 0), (0, 0, 255)}
    assert open_image(str(tmp_path / found["bytes"][1][0])).getpixel((0, 0)) == (0, 0, 255)


def test_a_member_that_is_not_there_is_missing(tmp_path: Path) -> None:
    BUILDERS["parquet"](tmp_path)
    BUILDERS["webdataset"](tmp_path)
    for inside in (
        "data/train-00000-of-00002.parquet::image/9",
        "data/train-00000-of-00002.parquet::image",
        "train-000000.tar::0+99999999999999",
        "train-000000.tar::first",
        "nothing.tar::0+5",
    ):
        with pytest.raises(ImageError, match="missing"):
            open_image(str(tmp_path / inside))
    with pytest.raises(ImageError, match="column picture"):
        open_image(str(tmp_path / "data/train-00000-of-00002.parquet::picture/0"))


def test_a_tar_with_several_pictures_and_one_without(tmp_path: Path) -> None:
    members = {
        "d/1.left.png": png(), "d/1.right.png": png("blue"), "d/1.json": b'{"question": "same?"}',
        "d/2.json": b'{"question": "what?"}', "d/3.png": png(), "d/3.json": b"[1]",
        "d/4.png": png(), "d/4.json": b'{"quest',
    }  # fmt: skip
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    problems: list[Problem] = []
    [found] = open_dataset("webdataset", tmp_path).examples("train", problems)
    assert found.image_ids == ("d/1", "d/1/1")
    assert open_image(str(tmp_path / found.images[1])).getpixel((0, 0)) == (0, 0, 255)
    told = " ".join(problem.what for problem in problems)
    assert "d/2: found json; expected a picture and a json" in told
    assert "d/3: its json is a list" in told
    assert "d/4: its json is truncated" in told


def test_a_compressed_tar_is_told(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train.tar", "w:gz"):
        pass
    with pytest.raises(DatasetError, match=r"train\.tar: not an uncompressed tar"):
        list(open_dataset("webdataset", tmp_path).examples("train"))


@pytest.mark.parametrize("name", ["csv", "parquet", "webdataset"])
def test_a_folder_of_ones_own_data_is_a_dataset_in_any_format(name: str, tmp_path: Path) -> None:
    BUILDERS[name](tmp_path)
    assert open_dataset("kitchen", tmp_path).name == name
