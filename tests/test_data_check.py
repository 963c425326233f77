"""`python -m data check`: overlaps first, and figures that are recomputed here in another way."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.__main__ import main
from data.check import gini

TYPES = {"how many": ["1", "2", "2", "3"], "what": ["red", "blue", "cat"], "is": ["yes", "no"]}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[dict[str, Any]]]]:
    root = tmp_path_factory.mktemp("rows")
    random = Random(0)
    splits: dict[str, list[dict[str, Any]]] = {}
    for split, n in (("train", 300), ("test", 120)):
        splits[split] = []
        for number in range(n):
            kind = random.choice(list(TYPES))
            answer = random.choice(TYPES[kind]) if random.random() < 0.9 else f"rare {number}"
            question = f"{kind} {random.randrange(20)}?"
            image = f"{split}{number // 3}.png"
            row = {"image": image, "question": question, "answer": answer, "question_type": kind}
            splits[split].append(row)
        (root / f"{split}.jsonl").write_text("\n".join(map(json.dumps, splits[split])))
    return root, splits


def test_figures_are_those_of_another_computation(
    rows: tuple[Path, dict[str, list[dict[str, Any]]]],
) -> None:
    root, splits = rows
    found = json.loads(run("jsonl", root, "--limit", 0, "--json").stdout)["splits"]["test"]
    train, test = splits["train"], splits["test"]
    seen = Counter(row["answer"] for row in train)
    by_question: dict[str, Counter[str]] = {}
    for row in train:
        by_question.setdefault(row["question"], Counter())[row["answer"]] += 1
    guesses = [
        by_question.get(row["question"], seen).most_common(1)[0][0] == row["answer"] for row in test
    ]
    assert found["question_lookup"] == pytest.approx(sum(guesses) / len(test))
    assert found["unseen_answers"] == pytest.approx(
        sum(row["answer"] not in seen for row in test) / len(test)
    )
    answers = Counter(row["answer"] for row in test)
    assert found["answers"] == dict(answers.most_common(10))
    for k in (1, 2, 10):
        top = sum(count for _, count in answers.most_common(k))
        assert found["top_share"][str(k)] == pytest.approx(top / len(test))
    inside = {answer for answer, _ in seen.most_common(100)}
    covered = sum(row["answer"] in inside for row in test) / len(test)
    assert found["coverage"]["100"] == pytest.approx(covered)
    for kind, told in found["question_types"].items():
        own = Counter(row["answer"] for row in test if row["question_type"] == kind)
        assert (told["n"], told["share"]) == (own.total(), own.most_common(1)[0][1] / own.total())
    assert (found["questions"], found["distinct_answers"]) == (120, len(answers))


def test_what_a_terminal_shows(rows: tuple[Path, dict[str, list[dict[str, Any]]]]) -> None:
    result = run("jsonl", rows[0], "--limit", 0)
    assert result.exit_code == 0, result.output
    assert "  looking the question up in train answers " in result.stdout
    assert "  covered by train's 100, 1,000, 3,000 most frequent answers: " in result.stdout
    assert "  how many: " in result.stdout
    assert result.stdout.count("Gini") == 2


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20))
def test_gini_is_the_mean_difference_over_twice_the_mean(counts: list[int]) -> None:
    n = len(counts)
    difference = sum(abs(a - b) for a in counts for b in counts) / n**2
    assert gini(counts) == pytest.approx(difference / (2 * sum(counts) / n), abs=1e-12)


def test_gini_of_nothing_is_none() -> None:
    assert gini([]) is None


def test_a_table_whose_evaluation_images_are_in_train_says_so_first(tmp_path: Path) -> None:
    """As the CSV form of DAQUAR that goes around: a random split of rows, not of images."""
    (tmp_path / "images").mkdir()
    for number in range(10):
        picture = Image.linear_gradient("L").rotate(36 * number).resize((32, 32))
        picture.save(tmp_path / "images" / f"image{number}.png")
    rows = [(f"q{n}", f"a{n % 3}", f"image{n % 10}") for n in range(40)]
    for name, chosen in (("data_train", rows[:32]), ("data_eval", [*rows[32:], rows[0]])):
        with open(tmp_path / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("question", "answer", "image_id"), *chosen])
    result = run("daquar", tmp_path)
    assert result.exit_code == 1
    first = result.stdout.splitlines()[0]
    told = "train and test share 9 images (100.0 % of test's 9), 1 distinct rows of image, question"
    assert first.startswith(told)
    assert "9 things wrong" in result.stderr
    found = json.loads(run("daquar", tmp_path, "--json").stdout)
    assert found["overlaps"][0]["images"] == 9
    assert found["wrong"] == 9


def test_images_that_look_alike_are_told_but_plain_ones_are_not(tmp_path: Path) -> None:
    random = Random(1)
    for number in range(2):
        noise = bytes(random.randrange(256) for _ in range(16 * 16))
        picture = Image.frombytes("L", (16, 16), noise).resize((128, 128), Image.Resampling.BICUBIC)
        picture.save(tmp_path / f"train{number}.png")
        if number == 0:
            picture.resize((96, 96)).save(tmp_path / "test0.jpg", quality=70)
    Image.new("RGB", (9, 9), "red").save(tmp_path / "train2.png")
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "test1.png")
    images = {"train": [f"train{n}.png" for n in range(3)], "test": ["test0.jpg", "test1.png"]}
    for split, names in images.items():
        lines = [json.dumps({"image": n, "question": "q", "answer": "a"}) for n in names]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    result = run("jsonl", tmp_path)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "train and test share 1 further images that look alike"


def test_a_page_holds_its_pictures_and_escapes_what_others_wrote(tmp_path: Path) -> None:
    Image.new("RGB", (400, 200), "red").save(tmp_path / "a.png")
    rows = [
        {"image": "a.png", "question": "<script>x</script>", "answer": "<b>&"},
        {"image": "gone.png", "question": "q", "answer": ""},
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = run("jsonl", tmp_path, "--page", tmp_path / "page.html")
    assert result.exit_code == 1
    text = (tmp_path / "page.html").read_text()
    assert text.count("data:image/jpeg;base64,") == 1
    assert "<script>" not in text
    assert "&lt;script&gt;x&lt;/script&gt;" in text
    assert "<b>&lt;b&gt;&amp;</b>" in text
    assert "(empty)" in text
    assert "gone.png: missing" in text
    assert "http" not in text
