"""The built-in dataset: true answers, promised proportions, same bytes, interrupted makes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from data.answers import normalise
from data.example import DatasetError, Example
from data.shapes import dataset as shapes_dataset
from data.shapes.annotators import ANNOTATORS, MOST_DEVIATIONS, annotate
from data.shapes.dataset import Making, Shapes, make
from data.shapes.programs import Ambiguous, Program, answer
from data.shapes.questions import TEMPLATES, Question, ask
from data.shapes.render import outline, png
from data.shapes.scene import COLOURS, SHAPES, SIDE, Scene, Shape, make_scene
from data.vqa2 import Vqa2

#   red circle   |  blue star
#   -------------+------------
#   (small) green square | large red circle
SCENE = Scene(
    image_id=1,
    background=230,
    shapes=(
        Shape("circle", "red", "large", 30, 30, 20),
        Shape("star", "blue", "large", 90, 36, 20),
        Shape("square", "green", "small", 46, 100, 12),
        Shape("circle", "red", "small", 104, 90, 12),
    ),
)
RED, STAR = ["filter", {"colour": "red"}], ["only", ["filter", {"shape": "star"}]]
SQUARE = ["only", ["filter", {"shape": "square"}]]


@pytest.mark.parametrize(
    ("program", "expected", "shapes"),
    [
        (["colour", ["only", ["filter", {"quarter": "top right"}]]], "blue", (1,)),
        (["shape", ["only", ["filter", {"colour": "red", "size": "small"}]]], "circle", (3,)),
        (["size", SQUARE], "small", (2,)),
        (["quarter", STAR], "top right", (1,)),
        (["shape", ["leftmost", ["filter", {}]]], "circle", (0,)),
        (["shape", ["lowest", ["filter", {}]]], "square", (2,)),
        (["size", ["rightmost", RED]], "small", (3,)),
        (["size", ["topmost", RED]], "large", (0,)),
        (["describe", ["size", "colour", "shape"], STAR], "large blue star", (1,)),
        (["list", ["colour"], "x", ["filter", {}]], "red, green, blue, red", (0, 2, 1, 3)),
        (["list", ["shape"], "y", RED], "circle, circle", (0, 3)),
        (["count", RED], "2", (0, 3)),
        (["count", ["filter", {"half": "left"}]], "2", (0, 2)),
        (["count", ["filter", {"half": "bottom", "colour": "blue"}]], "0", ()),
        (["exists", ["filter", {"shape": "cross"}]], "no", ()),
        (["exists", RED], "yes", (0, 3)),
        (["both exist", RED, ["filter", {"shape": "cross"}]], "no", (0, 3)),
        (["more", RED, ["filter", {"shape": "star"}]], "yes", (0, 3, 1)),
        (["more", ["filter", {"half": "left"}], ["filter", {"half": "right"}]], "no", (0, 2, 1, 3)),
        (["more", RED, ["filter", {"shape": "circle"}]], "no", (0, 3, 0, 3)),
        (["is", "left of", SQUARE, STAR], "yes", (2, 1)),
        (["is", "above", SQUARE, STAR], "no", (2, 1)),
        (["colour", ["only", ["left of", SQUARE]]], "red", (0,)),
        (["count", ["above", SQUARE]], "3", (0, 1, 3)),
        (["count", ["right of", STAR]], "1", (3,)),
    ],
)
def test_programs_answer_a_known_scene(
    program: Program, expected: str, shapes: tuple[int, ...]
) -> None:
    assert answer(program, SCENE) == (expected, shapes)


@pytest.mark.parametrize(
    "program",
    [
        ["colour", ["only", RED]],
        ["colour", ["only", ["filter", {"shape": "cross"}]]],
        ["colour", ["topmost", ["filter", {}]]],  # the upper two are level
        ["is", "above", ["only", ["filter", {"quarter": "top left"}]], STAR],
        ["is", "left of", STAR, STAR],
        ["list", ["colour"], "y", ["filter", {}]],
        ["count", ["above", STAR]],
    ],
)
def test_what_a_viewer_could_dispute_is_not_answered(program: Program) -> None:
    with pytest.raises(Ambiguous):
        answer(program, SCENE)


def test_an_unknown_operation_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown operation 'guess'"):
        answer(["guess", []], SCENE)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(image_id, Random(f"scene {image_id}")) for image_id in range(400)]


@pytest.fixture(scope="module")
def asked(scenes: list[Scene]) -> list[tuple[Scene, Question]]:
    """Ten questions about each scene."""
    found = []
    for scene in scenes:
        texts: set[str] = set()
        for ordinal in range(10):
            question = ask(scene, Random(f"question {scene.image_id} {ordinal}"), texts)
            texts.add(question.text)
            found.append((scene, question))
        assert len(texts) == 10
    return found


def test_scenes_hold_three_to_eight_shapes_inside_the_picture(scenes: list[Scene]) -> None:
    assert {len(scene.shapes) for scene in scenes} == {3, 4, 5, 6, 7, 8}
    for scene in scenes:
        for shape in scene.shapes:
            corners = [value for corner in outline(shape) for value in corner]
            assert min(corners) >= 0
            assert max(corners) <= SIDE
    kinds = {(shape.shape, shape.colour) for scene in scenes for shape in scene.shapes}
    assert len(kinds) == len(SHAPES) * len(COLOURS)


def visible_shares(scene: Scene) -> list[float]:
    """What share of each shape's pixels no other shape covers, counted on a picture."""
    from PIL import ImageDraw

    together = Image.new("L", (SIDE, SIDE), 0)
    alone = []
    for place, shape in enumerate(scene.shapes, start=1):
        single = Image.new("L", (SIDE, SIDE), 0)
        for image, value in ((single, 1), (together, place)):
            ImageDraw.Draw(image).polygon(outline(shape), fill=value)
        alone.append(single.histogram()[1])
    seen = together.histogram()
    return [seen[place] / area for place, area in enumerate(alone, start=1)]


def test_shapes_overlap_and_stay_visible(scenes: list[Scene]) -> None:
    shares = [visible_shares(scene) for scene in scenes[:150]]
    overlapping = sum(min(share) < 0.99 for share in shares)
    assert overlapping >= 0.9 * len(shares)
    assert min(min(share) for share in shares) > 0.4


def test_the_picture_shows_what_the_scene_says(scenes: list[Scene]) -> None:
    for scene in scenes[:20]:
        with Image.open(io.BytesIO(png(scene))) as image:
            assert (image.size, image.mode) == ((SIDE, SIDE), "RGB")
            top = scene.shapes[-1]  # drawn last, so nothing covers it
            assert image.getpixel((round(top.x), round(top.y))) == COLOURS[top.colour]
            assert image.getpixel((0, 0)) == (scene.background,) * 3


def test_every_template_asks_and_its_answers_are_true(
    asked: list[tuple[Scene, Question]],
) -> None:
    kinds = Counter(question.question_type for _, question in asked)
    assert set(kinds) == {template.question_type for template in TEMPLATES}
    assert min(kinds.values()) > 0.03 * len(asked)
    operations = {question.program[0] for _, question in asked}
    assert operations == {
        *("colour", "shape", "size", "quarter", "describe", "list"),
        *("count", "exists", "both exist", "more", "is"),
    }
    for scene, question in asked:
        assert answer(question.program, scene) == (question.answer, question.shapes)


def test_a_quarters_colour_is_that_of_the_pixel_shown(
    asked: list[tuple[Scene, Question]],
) -> None:
    """From the words and the picture alone, without programs: the shape's centre has the colour."""
    checked = 0
    for scene, question in asked[:1500]:
        words = question.text.rstrip("?").removesuffix(" corner")
        if not words.startswith("what colour is the shape ") or "half" in words:
            continue
        for quarter in ("top left", "top right", "bottom left", "bottom right"):
            if words.endswith(f" the {quarter}"):
                [shape] = [shape for shape in scene.shapes if shape.quarter == quarter]
                assert ("top" in quarter, "left" in quarter) == (shape.y < 64, shape.x < 64)
                assert question.answer == shape.colour
                checked += 1
    assert checked > 30


def look_up_accuracy(train: list[tuple[str, str]], test: list[tuple[str, str]]) -> float:
    """Accuracy of the most frequent training answer of each question's text."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for text, truth in train:
        counts[text][truth] += 1
    fallback = Counter(truth for _, truth in train).most_common(1)[0][0]
    best = {text: answers.most_common(1)[0][0] for text, answers in counts.items()}
    return sum(best.get(text, fallback) == truth for text, truth in test) / len(test)


def test_the_question_alone_gives_little_away(asked: list[tuple[Scene, Question]]) -> None:
    pairs = [(question.text, question.answer) for _, question in asked]
    accuracy = look_up_accuracy(pairs[:3200], pairs[3200:])
    assert 0.15 < accuracy < 0.38  # at 50,000 questions 0.29, promised 0.45 at most


def test_yes_and_no_are_balanced(asked: list[tuple[Scene, Question]]) -> None:
    given = Counter(q.answer for _, q in asked if q.answer_type == "yes/no")
    assert 0.45 < given["yes"] / given.total() < 0.55


def test_answers_have_a_long_tail(asked: list[tuple[Scene, Question]]) -> None:
    counts = Counter(question.answer for _, question in asked)
    assert len(counts) > 350
    assert len({question.text for _, question in asked}) > 900
    once = sum(count == 1 for count in counts.values())
    assert once > 0.4 * len(counts)
    # most questions have one of the few frequent answers, so a vocabulary of 1,000 covers them
    assert sum(count for _, count in counts.most_common(40)) > 0.75 * len(asked)


@pytest.mark.parametrize(
    "truth",
    ["yes", "no", "0", "8", "red", "large", "star", "top left", "small red cross, blue circle"],
)
def test_few_of_ten_annotators_deviate(truth: str) -> None:
    rng = Random(0)
    deviating = Counter[int]()
    for _ in range(500):
        answers = [given for given, _ in annotate(truth, rng)]
        assert len(answers) == ANNOTATORS
        deviating[sum(given != truth for given in answers)] += 1
    assert max(deviating) <= MOST_DEVIATIONS
    assert 0.02 < sum(n * times for n, times in deviating.items()) / 5000 < 0.15
    assert deviating[0] > 100


def test_some_deviations_are_the_same_once_normalised() -> None:
    rng = Random(1)
    given = {answer for _ in range(300) for answer, _ in annotate("3", rng)}
    assert given == {"2", "3", "4", "three"}
    assert normalise("three") == "3"


SMALL = Making(images=20, questions=50, seed=7)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "shapes"
    assert make(root, SMALL)
    return root


def digest(root: Path) -> str:
    """One digest of names and bytes of every file under a folder."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def test_the_vqa2_adapter_reads_what_is_made(small: Path) -> None:
    for dataset in (Shapes(small), Vqa2(small)):
        assert dataset.splits() == ["train", "val", "test"]
        by_split = {split: list(dataset.examples(split)) for split in dataset.splits()}
        assert [len(examples) for examples in by_split.values()] == [40, 5, 5]
        images = [{image for e in examples for image in e.images} for examples in by_split.values()]
        assert [len(names) for names in images] == [16, 2, 2]
        assert not set.intersection(*images)
        assert all((small / name).is_file() for names in images for name in names)
        assert all(dataset.annotated(split) for split in by_split)
        everything: list[Example] = [e for examples in by_split.values() for e in examples]
        assert len({example.question_id for example in everything}) == 50
        assert {len(example.answers) for example in everything} == {ANNOTATORS}


def test_every_expected_file_is_made_and_no_other(small: Path) -> None:
    expected = {path for name in Shapes(small).expected_files() for path in small.glob(name)}
    assert expected == {path for path in small.rglob("*") if path.is_file()}


def test_the_truth_beside_the_answers_makes_them_true(small: Path) -> None:
    for split in ("train", "val", "test"):
        truth = json.loads((small / f"scenes.{split}.json").read_text())
        scenes = {
            scene["image_id"]: Scene(
                scene["image_id"],
                scene["background"],
                tuple(Shape(**shape) for shape in scene["shapes"]),
            )
            for scene in truth["scenes"]
        }
        entries = {entry["question_id"]: entry for entry in truth["questions"]}
        for example in Shapes(small).examples(split):
            entry = entries.pop(example.question_id)
            found, shapes = answer(entry["program"], scenes[entry["image_id"]])
            assert (found, list(shapes)) == (example.answer, entry["shapes"])
            assert example.image_ids == (entry["image_id"],)
        assert not entries


def test_the_same_seed_gives_the_same_bytes(small: Path, tmp_path: Path) -> None:
    """In another process, with another hash seed, after another make in the same folder."""
    root = tmp_path / "again"
    make(root, Making(images=5, questions=9, seed=8))
    command = f"-m data make shapes {root} --images 20 --questions 50 --seed 7".split()
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    subprocess.run([sys.executable, *command], env=environment, check=True, capture_output=True)
    assert digest(root) == digest(small)


def test_another_seed_gives_other_questions_and_images(small: Path, tmp_path: Path) -> None:
    make(tmp_path / "other", Making(images=20, questions=50, seed=8))
    for name in ("test2015/COCO_test2015_000000000020.png", "scenes.val.json"):
        assert (tmp_path / "other" / name).read_bytes() != (small / name).read_bytes()


def test_the_least_dataset_has_one_image_a_split(tmp_path: Path) -> None:
    make(tmp_path, Making(images=3, questions=3))
    assert [len(list(Shapes(tmp_path).examples(s))) for s in ("train", "val", "test")] == [1, 1, 1]
    with pytest.raises(DatasetError, match="found 2 images, expected 3 at least"):
        make(tmp_path, Making(images=2, questions=3))


def test_more_questions_than_an_image_has_repeat(tmp_path: Path) -> None:
    make(tmp_path, Making(images=3, questions=1500))
    assert len(list(Shapes(tmp_path).examples("train"))) == 1200


def test_a_finished_make_is_left_alone(small: Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    assert not make(small, SMALL)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == stamps


@pytest.mark.parametrize("step", ["png", "annotate"])
@pytest.mark.parametrize("before", [True, False])
def test_an_interrupted_make_is_told_and_made_again(
    step: str, before: bool, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before:
        make(tmp_path, Making(images=4, questions=4))
    calls = 0
    intact = getattr(shapes_dataset, step)

    def interrupted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 18:
            raise KeyboardInterrupt
        return intact(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shapes_dataset, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, SMALL)
    with pytest.raises(DatasetError, match="unfinished: make it again with `python -m data make"):
        Shapes(tmp_path).splits()
    assert make(tmp_path, SMALL)
    assert digest(tmp_path) == digest(small)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(
        DatasetError, match=r"holds thesis.tex and no shapes.json; expected an empty"
    ):
        make(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_without_a_make_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no shapes.json in .*`python -m data make shapes"):
        list(Shapes(tmp_path).examples("train"))
