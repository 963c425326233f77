"""Views: examples selected, cut and dealt out by the rule that data/view.py states."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from data.__main__ import main
from data.example import Dataset, DatasetError, Example
from data.registry import open_dataset
from data.view import bound

N = 40


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of two splits; image n // 3 of each, so that three questions share one."""
    root = tmp_path / "datasets" / "own"
    root.mkdir(parents=True)
    for split, first in (("train", 0), ("val", 1000)):
        rows = [
            {
                "question_id": first + n,
                "image": f"{split}{n // 3}.png",
                "question": f"q{n}",
                "answer": str(n % 5),
                "question_type": "even" if n % 2 == 0 else "odd",
                "answer_type": "number" if n % 4 else "other",
            }
            for n in range(N)
        ]
        (root / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def view(text: str, name: str = "mine") -> Dataset:
    head = 'from = "jsonl"\nroot = "datasets/own"\n'
    Path(f"datasets/{name}.toml").write_text(head + text)
    return open_dataset(name)


def ids(dataset: Dataset, split: str) -> list[int | str | None]:
    return [example.question_id for example in dataset.examples(split)]


@pytest.mark.parametrize(
    ("text", "n", "place"),
    [
        ("75%", 121512, 91134), ("80%", 121512, 97210), ("100%", 121512, 121512),  # a journal's
        ("-1000", 121512, 120512), ("0.8", 5, 4), ("0.5", 5, 3), ("7500", 100, 100), ("-9", 5, 0),
        ("12.5%", 4, 1), ("0", 0, 0), (".1", 10, 1), ("-0.25", 8, 6),
    ],
)  # fmt: skip
def test_a_bound_is_a_count_or_a_rounded_share(text: str, n: int, place: int) -> None:
    assert bound(text, n) == place


def test_slices_in_the_files_order(home: Path) -> None:
    made = view('[splits]\ntrain = "train[:75%]"\nval = "train[75%:80%]"\ntest = "train[80%:]"\n')
    assert made.splits() == ["train", "val", "test"]
    assert [len(ids(made, split)) for split in made.splits()] == [30, 2, 8]
    assert [*ids(made, "train"), *ids(made, "val"), *ids(made, "test")] == list(range(N))
    assert made.name == "mine"
    assert made.annotated("test")


def test_selected_before_they_are_cut(home: Path) -> None:
    Path("datasets/answers.txt").write_text("1\n2\n\n")
    made = view(
        '[select]\nanswer_types = ["number"]\nquestion_types = ["odd"]\nanswers = "answers.txt"\n'
        '[splits]\ntrain = "train[:-2]"\ntest = "train[-2:]"\n'
    )
    wanted = [n for n in range(N) if n % 4 and n % 2 and n % 5 in (1, 2)]
    assert ids(made, "train") == wanted[:-2]
    assert ids(made, "test") == wanted[-2:]


def test_a_seed_ranks_examples_by_the_stated_hash(home: Path) -> None:
    made = view('order = "seed"\nseed = 3\n[splits]\ntrain = "val[:0.5]"\ntest = "val[0.5:]"\n')
    ranked = sorted(range(N), key=lambda n: hashlib.sha256(f"3 val {n}".encode()).digest())
    assert ids(made, "train") == sorted(1000 + n for n in ranked[: N // 2])
    assert ids(made, "test") == sorted(1000 + n for n in ranked[N // 2 :])
    other = view('order = "seed"\nseed = 4\n[splits]\ntrain = "val[:0.5]"\n', "other")
    assert ids(other, "train") != ids(made, "train")


def groups(dataset: Dataset, split: str, key: str) -> set[object]:
    def of(example: Example) -> object:
        return example.images if key == "image" else (example.question_type, example.answer)

    return {of(example) for example in dataset.examples(split)}


@pytest.mark.parametrize("by", ["image", "answer"])
def test_units_are_never_cut(by: str, home: Path) -> None:
    made = view(
        f'order = "seed"\nby = "{by}"\n[splits]\ntrain = "train[:75%]"\ntest = "train[75%:]"'
    )
    assert groups(made, "train", by).isdisjoint(groups(made, "test", by))
    counts = [len(ids(made, split)) for split in ("train", "test")]
    assert sum(counts) == N
    assert abs(counts[0] - 30) <= 2


def test_images_joined_by_an_example_stay_together(home: Path) -> None:
    lists = [["a", "b"], ["b", "c"], ["d"], ["c"], ["e", "a"], ["f"], ["d", "f"]]
    rows = [{"image": images, "question": "q", "answer": "x"} for images in lists]
    Path("datasets/own/train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = view(
        'order = "seed"\nby = "image"\n[splits]\ntrain = "train[:50%]"\ntest = "train[50%:]"'
    )
    found = {s: {i for e in made.examples(s) for i in e.images} for s in ("train", "test")}
    assert sorted(found.values(), key=sorted) == [set("abce"), set("df")]


def test_splits_are_joined_and_keep_ids_that_stay_unique(home: Path) -> None:
    made = view('[splits]\ntrain = "train+val[:2]"\n')
    assert ids(made, "train") == [*range(N), 1000, 1001]
    rows = Path("datasets/own/train.jsonl").read_text()
    Path("datasets/own/val.jsonl").write_text(rows)
    assert ids(made, "train")[:2] == ["train/0", "train/1"]
    assert ids(made, "train")[-1] == "val/1"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"no splits; expected the dataset's name and a table \[splits\]"),
        ("size = 3\n", r"size = 3; expected one of from, root, order"),
        ('seed = "3"\n', r"seed = '3'; expected one of from"),
        (
            'order = "random"\n[splits]\ntrain = "train"\n',
            "order = 'random'; expected file or seed",
        ),
        (
            'by = "day"\n[splits]\ntrain = "train"\n',
            "by = 'day'; expected example or image or answer",
        ),
        (
            '[splits]\ntrain = "train[1:2:3]"\n',
            r"splits.train = 'train\[1:2:3\]'; expected a split",
        ),
        ("[splits]\ntrain = 3\n", "splits.train = 3; expected a split"),
        ('[select]\nanswers = []\n[splits]\ntrain = "train"\n', r"select.answers = \[\]; expected"),
        ('[select]\nsize = ["a"]\n[splits]\ntrain = "train"\n', "select.size = "),
        ('[select]\nanswers = "a.txt"\n[splits]\ntrain = "train"\n', "a.txt: no such file"),
        ("train = [\n", "not valid TOML"),
        ('[splits]\ntrain = "dev"\n', "no split 'dev' in .*; found train, val"),
    ],
)
def test_a_mistake_in_a_view_is_one_line(text: str, told: str, home: Path) -> None:
    with pytest.raises(DatasetError, match=told) as raised:
        view(text).splits()
    assert "\n" not in str(raised.value)


def test_an_unknown_dataset_of_a_view_is_one_line(home: Path) -> None:
    Path("datasets/other.toml").write_text('from = "coco"\n[splits]\ntrain = "train"\n')
    result = CliRunner().invoke(main, ["check", "other"])
    assert result.exit_code == 1
    assert "other.toml: from = 'coco'; known: a_okvqa, " in result.stderr
