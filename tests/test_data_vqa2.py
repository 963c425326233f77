"""Official VQA JSON: names of v1 and v2, joining by id, image names, every kind of bad file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vqa_cache
from benchmarks import ingestion
from benchmarks.inputs.official_files import write_official_files
from data.example import DatasetError, Example, Problem
from data.vqa2 import Vqa2

QUESTIONS = [
    {"question_id": 10, "image_id": 1, "question": "what colour?"},
    {"question_id": 11, "image_id": 1, "question": "how many?"},
    {"question_id": 20, "image_id": 2, "question": "is it?"},
]


def annotation(question_id: int, image_id: int, *answers: str) -> dict[str, Any]:
    return {
        "question_id": question_id,
        "image_id": image_id,
        "question_type": "what",
        "answer_type": "other",
        "multiple_choice_answer": answers[0],
        "answers": [
            {"answer": answer, "answer_confidence": "yes", "answer_id": number}
            for number, answer in enumerate(answers, start=1)
        ],
    }


# in another order than the questions: joined by id, never by place
ANNOTATIONS = [
    annotation(20, 2, "yes", "yes", "no"),
    annotation(10, 1, "red", "Red"),
    annotation(11, 1, "", "2"),
]


def written(
    root: Path,
    questions: list[Any],
    annotations: list[Any] | None,
    *,
    prefix: str = "v2_",
    subtype: str = "train2014",
) -> Vqa2:
    root.mkdir(exist_ok=True, parents=True)
    path = root / f"{prefix}OpenEnded_mscoco_{subtype}_questions.json"
    path.write_text(json.dumps({"info": {}, "questions": questions}))
    if annotations is not None:
        path = root / f"{prefix}mscoco_{subtype}_annotations.json"
        path.write_text(json.dumps({"info": {}, "annotations": annotations}))
    return Vqa2(root)


@pytest.mark.parametrize("prefix", ["v2_", ""])
def test_questions_and_annotations_are_joined_by_id(prefix: str, tmp_path: Path) -> None:
    dataset = written(tmp_path, QUESTIONS, ANNOTATIONS, prefix=prefix)
    assert dataset.splits() == ["train"]
    assert dataset.annotated("train")
    first, second, third = dataset.examples("train")
    assert first == Example(
        10,
        (1,),
        ("train2014/COCO_train2014_000000000001.jpg",),
        "what colour?",
        "red",
        ("red", "Red"),
        "what",
        "other",
    )
    assert (second.answer, second.answers) == ("", ("", "2"))
    assert (third.question_id, third.answers) == (20, ("yes", "yes", "no"))


def test_v2_outranks_v1_and_never_mixes_with_it(tmp_path: Path) -> None:
    written(tmp_path, QUESTIONS, ANNOTATIONS, prefix="")
    dataset = written(tmp_path, QUESTIONS[:1], None)
    assert not dataset.annotated("train")
    assert [(e.question_id, e.answer) for e in dataset.examples("train")] == [(10, None)]


def test_a_split_without_annotations_is_unlabelled(tmp_path: Path) -> None:
    written(tmp_path, QUESTIONS, None, subtype="test2015")
    written(tmp_path, QUESTIONS, None, subtype="test-dev2015")
    dataset = written(tmp_path, QUESTIONS, ANNOTATIONS, subtype="val2014")
    assert dataset.splits() == ["val", "test", "test-dev"]
    assert [dataset.annotated(split) for split in dataset.splits()] == [True, False, False]
    assert [e.answer for e in dataset.examples("test")] == [None] * 3
    [image] = {e.images[0] for e in dataset.examples("test-dev") if e.image_ids == (1,)}
    assert image == "test2015/COCO_test2015_000000000001.jpg"


def test_subfolders_of_questions_and_annotations_are_found(tmp_path: Path) -> None:
    written(tmp_path, QUESTIONS, ANNOTATIONS)
    for kind in ("questions", "annotations"):
        (tmp_path / kind).mkdir()
        for path in tmp_path.glob(f"v2_*{kind}.json"):
            path.rename(tmp_path / kind / path.name)
    dataset = Vqa2(tmp_path)
    assert dataset.annotated("train")
    assert len(list(dataset.examples("train"))) == 3


@pytest.mark.parametrize(
    "image",
    [
        "train2014/COCO_train2014_000000000001.jpg",
        "train2014/COCO_train2014_000000000001.png",
        "train2014/000000000001.jpg",
        "train2017/000000000001.jpg",
        "val2017/000000000001.jpg",
        "images/train2014/COCO_train2014_000000000001.jpg",
        "images/val2017/000000000001.png",
    ],
)
def test_images_are_found_under_any_of_their_names(image: str, tmp_path: Path) -> None:
    dataset = written(tmp_path, QUESTIONS[:1], None)
    (tmp_path / image).parent.mkdir(parents=True)
    (tmp_path / image).touch()
    [example] = dataset.examples("train")
    assert example.images == (image,)


def told(dataset: Vqa2, split: str = "train") -> tuple[list[int | str | None], list[Problem]]:
    problems: list[Problem] = []
    return [example.question_id for example in dataset.examples(split, problems)], problems


def test_a_missing_annotation(tmp_path: Path) -> None:
    dataset = written(tmp_path, QUESTIONS, ANNOTATIONS[:2])
    with pytest.raises(DatasetError, match=r"annotations.json: missing annotation of question 11"):
        list(dataset.examples("train"))
    kept, [problem] = told(dataset)
    assert (kept, problem.question_id) == ([10, 20], 11)


def test_an_annotation_without_any_answer_is_missing(tmp_path: Path) -> None:
    hollow = {"question_id": 11, "image_id": 1, "answers": []}
    dataset = written(tmp_path, QUESTIONS, [*ANNOTATIONS[:2], hollow])
    with pytest.raises(DatasetError, match=r"annotations\[2\] is a missing annotation"):
        list(dataset.examples("train"))
    assert told(dataset)[0] == [10, 20]


def test_an_annotation_of_an_unknown_question(tmp_path: Path) -> None:
    dataset = written(tmp_path, QUESTIONS[:2], ANNOTATIONS)
    with pytest.raises(DatasetError, match="annotation of unknown question 20"):
        list(dataset.examples("train"))
    kept, [problem] = told(dataset)
    assert (kept, problem.question_id) == ([10, 11], 20)


def test_duplicate_ids_keep_the_first(tmp_path: Path) -> None:
    again = {**QUESTIONS[0], "question": "again?"}
    dataset = written(tmp_path, [*QUESTIONS, again], ANNOTATIONS)
    with pytest.raises(DatasetError, match="question id 10 occurs twice, expected once"):
        list(dataset.examples("train"))
    kept, [problem] = told(dataset)
    assert (kept, problem.question_id) == ([10, 11, 20], 10)


def test_duplicate_annotations_keep_the_first(tmp_path: Path) -> None:
    dataset = written(tmp_path, QUESTIONS, [*ANNOTATIONS, annotation(10, 1, "blue")])
    with pytest.raises(DatasetError, match="annotation of question id 10 occurs twice"):
        list(dataset.examples("train"))
    problems: list[Problem] = []
    assert next(dataset.examples("train", problems)).answer == "red"
    assert len(problems) == 1


def test_an_annotation_about_another_image(tmp_path: Path) -> None:
    dataset = written(tmp_path, QUESTIONS, [*ANNOTATIONS[1:], annotation(20, 9, "yes")])
    with pytest.raises(DatasetError, match="question 20 is about image 9, expected 2"):
        list(dataset.examples("train"))
    assert told(dataset)[0] == [10, 11]


def test_a_majority_that_is_not_named_is_counted(tmp_path: Path) -> None:
    entry = annotation(10, 1, "red", "blue", "blue")
    del entry["multiple_choice_answer"]
    [example] = written(tmp_path, QUESTIONS[:1], [entry]).examples("train")
    assert example.answer == "blue"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "is no object"),
        ({"image_id": 1, "question": "?"}, "has no question_id"),
        ({"question_id": True, "image_id": 1, "question": "?"}, "has no question_id"),
        ({"question_id": 1, "image_id": "1", "question": "?"}, "has image_id '1', expected an int"),
        ({"question_id": 1, "image_id": 1}, "has no question, expected a text"),
    ],
)
def test_malformed_questions(entry: Any, message: str, tmp_path: Path) -> None:
    dataset = written(tmp_path, [*QUESTIONS, entry], None)
    with pytest.raises(DatasetError, match=rf"questions\[3\] {message}"):
        list(dataset.examples("train"))
    kept, problems = told(dataset)
    assert (kept, len(problems)) == ([10, 11, 20], 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": [{"answer": 3}]}, "has malformed answers"),
        ({"answers": "yes"}, "has malformed answers"),
        ({"multiple_choice_answer": 3}, "has multiple_choice_answer 3"),
    ],
)
def test_malformed_annotations(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    dataset = written(tmp_path, QUESTIONS, [{**ANNOTATIONS[0], **change}, *ANNOTATIONS[1:]])
    with pytest.raises(DatasetError, match=rf"annotations\[0\] {message}"):
        list(dataset.examples("train"))
    assert told(dataset)[0] == [10, 11]


def test_truncated_json_is_one_clear_line(tmp_path: Path) -> None:
    dataset = written(tmp_path, QUESTIONS, ANNOTATIONS)
    path = tmp_path / "v2_mscoco_train2014_annotations.json"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(
        DatasetError, match=r"annotations.json: truncated or invalid JSON at line 1 column"
    ) as raised:
        list(dataset.examples("train"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["[]", "{}", '{"questions": 3}'])
def test_json_of_another_form(content: str, tmp_path: Path) -> None:
    (tmp_path / "v2_OpenEnded_mscoco_train2014_questions.json").write_text(content)
    with pytest.raises(DatasetError, match="found no list 'questions', expected VQA JSON"):
        list(Vqa2(tmp_path).examples("train"))


def test_an_unknown_split_lists_those_found(tmp_path: Path) -> None:
    dataset = written(tmp_path, QUESTIONS, None)
    with pytest.raises(DatasetError, match=r"no split 'dev' in .*; found train;"):
        list(dataset.examples("dev"))


def test_the_ingestion_benchmark_reads_all_that_it_made(tmp_path: Path) -> None:
    """In its short form: what it measures is stage 1's examples, whole, and `data check`."""
    sizes = ingestion.part_of(ingestion.VQA2, 0.0003)
    write_official_files(tmp_path / "vqa2", sizes)
    ingestion.ingest(tmp_path / "vqa2")
    ingestion.check(tmp_path / "vqa2")
    opened = vqa_cache.open(tmp_path / "vqa2" / "cache")
    for name, count in sizes.questions.items():
        split = opened.split(f"vqa2/{name}")
        assert len(split) == count
        assert split.answers_offsets[-1] == 10 * count
        assert len(split.image_keys) <= sizes.images[name]
        assert 0.7 < (split.answers.reshape(-1, 10) == split.answer[:, None]).mean() < 0.95
