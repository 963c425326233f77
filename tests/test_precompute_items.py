"""From Examples to columns and back to pandas; what has to be encoded."""

from __future__ import annotations

import hashlib
import time
import unicodedata
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_images
from hypothesis import given, settings
from hypothesis import strategies as st

from data.answers import normalise
from data.example import DatasetError, Example, Problem
from data.members import open_member
from precompute.errors import ItemError
from precompute.items import ImageHashing, SplitColumns, Wanted, collect_split
from vqa_cache import open as open_cache
from vqa_cache.cache import create_cache
from vqa_cache.examples import Split, write_split
from vqa_cache.keys import image_key, text_key
from vqa_cache.memo import Memo
from vqa_cache.records.split import Skipped


class Listed:
    """A dataset of examples given as a list."""

    name = "listed"

    def __init__(self, root: Path, examples: list[Example], *, annotated: bool = True) -> None:
        self.root, self._examples, self._annotated = root, examples, annotated
        self.problems: list[Problem] = []

    def splits(self) -> list[str]:
        return ["train"]

    def annotated(self, split: str) -> bool:
        return self._annotated

    def expected_files(self) -> list[str]:
        return []

    def examples(self, split: str, problems: list[Problem] | None = None) -> Iterator[Example]:
        if self.problems and problems is None:
            raise DatasetError(self.problems[0].what)
        if problems is not None:
            problems += self.problems
        yield from self._examples


def collect(
    dataset: Listed, *, limit: int | None = None, skip_errors: bool = False, workers: int = 2
) -> tuple[SplitColumns, Wanted]:
    wanted = Wanted()
    memo = Memo(dataset.root / "memo.sqlite")
    hashing = ImageHashing(memo, workers=workers, rehash=False)
    found = collect_split(
        dataset, "train", limit=limit, skip_errors=skip_errors, hashing=hashing, wanted=wanted
    )
    memo.close()
    return found, wanted


def stored(dataset: Listed, **how: Any) -> tuple[Split, Wanted]:
    """The split as it comes back from a cache."""
    found, wanted = collect(dataset, **how)
    cache = create_cache(dataset.root / "cache")
    write_split(
        cache.path / "examples" / "listed" / "train",
        found.columns,
        examples=found.examples,
        annotated=found.annotated,
        limit=None,
        skipped=found.skipped,
    )
    return open_cache(cache.path).split("listed/train"), wanted


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four pictures, two of them the same bytes."""
    root = tmp_path_factory.mktemp("listed")
    write_images(root, 3)
    (root / "copy.png").write_bytes((root / "0.png").read_bytes())
    return root


PICTURES = ["0.png", "1.jpg", "2.png", "copy.png"]


def test_integer_ids_stay_integers(root: Path, tmp_path: Path) -> None:
    examples = [
        Example(2**62, (-5,), ("0.png",), "a?", "yes", ("yes", "no", "yes")),
        Example(-1, (7,), ("1.jpg",), "b?", "no", ("no",), "is", "yes/no"),
    ]
    split, _ = stored(Listed(root, examples))
    assert split.question_id.dtype == split.image_id.dtype == np.int64
    frame = split.to_pandas()
    assert frame["question_id"].tolist() == [2**62, -1]
    assert frame["image_id"].tolist() == [-5, 7]
    assert frame["image_key"].tolist() == [image_key(root / name).hex() for name in PICTURES[:2]]
    assert frame["answers"].tolist() == [["yes", "no", "yes"], ["no"]]
    assert frame["answer"].tolist() == ["yes", "no"]
    assert frame["answer_type"].isna().tolist() == [True, False]
    assert frame["question_type"].tolist()[1] == "is"


@pytest.mark.parametrize(
    "ids", [["q1", "ü/2"], [1, "1a"], [2**63, 1], ["", "x"]], ids=["text", "mixed", "wide", "empty"]
)
def test_other_ids_are_texts(root: Path, ids: list[Any]) -> None:
    examples = [Example(one, (one,), ("0.png",), "a?", "x", ("x",)) for one in ids]
    split, _ = stored(Listed(root, examples))
    assert split.question_id.tolist() == split.image_id.tolist() == [str(one) for one in ids]
    assert split.to_pandas()["question_id"].tolist() == [str(one) for one in ids]


def hashed(image: str, question: str, ordinal: int) -> int:
    """FORMAT.md section 5: the first 53 bits."""
    digest = hashlib.sha256(f"{image}\0{question}\0{ordinal}".encode()).digest()
    return int(digest.hex()[:16], 16) // 2**11


def test_missing_ids_are_stable_hashes(root: Path) -> None:
    pairs = [("0.png", "a?"), ("1.jpg", "a?"), ("0.png", "b?"), ("0.png", "a?"), ("0.png", "a?")]
    examples = [Example(None, (image,), (image,), text, "x") for image, text in pairs]
    split, _ = stored(Listed(root, examples))
    ordinals = [0, 0, 0, 1, 2]
    expected = [hashed(*pair, n) for pair, n in zip(pairs, ordinals, strict=True)]
    assert split.question_id.tolist() == expected
    assert len(set(expected)) == 5
    assert all(int(float(number)) == number < 2**53 for number in expected), "JSON readers keep it"
    # an example more changes no other's id
    more, _ = stored(Listed(root, [Example(None, ("2.png",), ("2.png",), "c?", "x"), *examples]))
    assert more.question_id.tolist()[1:] == expected


def test_several_images(root: Path) -> None:
    examples = [
        Example(1, (10, 11), ("0.png", "1.jpg"), "same?", "no", ("no",)),
        Example(2, (12,), ("copy.png",), "what?", "x", ("x",)),
        Example(3, (13, 10), ("2.png", "0.png"), "same?", "yes", ("yes",)),
    ]
    split, wanted = stored(Listed(root, examples))
    assert len(split.image_keys) == len(wanted.images) == 3  # a copy is the same picture
    assert split.image_lists is not None
    flat, edges = split.image_lists
    assert (flat.tolist(), edges.tolist()) == ([0, 1, 0, 2, 0], [0, 2, 3, 5])
    assert split.image_positions.tolist() == [0, 0, 2]
    assert split.question_positions.tolist() == [0, 1, 0]


def test_unlabelled(root: Path) -> None:
    split, wanted = stored(Listed(root, [Example(1, (1,), ("0.png",), "a?")], annotated=False))
    assert not split.annotated
    assert split.answer.tolist() == [-1]
    frame = split.to_pandas()
    assert frame["answer"].isna().all()
    assert frame["answers"].tolist() == [[]]
    assert wanted.answers == {}


def test_wanted_answers_and_their_normalised_forms(root: Path) -> None:
    answers = ("The cat's!", "two", "", "caf\u00e9")
    examples = [Example(1, (1,), ("0.png",), "a?", "Majority.", answers)]
    found, wanted = collect(Listed(root, examples))
    forms = {unicodedata.normalize("NFC", text) for text in (*answers, "Majority.")}
    forms |= {normalise(text) for text in forms}
    assert set(wanted.answers.values()) == forms
    assert all(text_key(text) == key for key, text in wanted.answers.items())
    assert normalise("The cat's!") != "The cat's!"
    assert found.empty_answers == 1


def test_a_missing_image(root: Path) -> None:
    examples = [
        Example(1, (1,), ("gone.png",), "a?", "x", ("x",)),
        Example(2, (2, 3), ("gone.png", "1.jpg"), "b?", "x", ("x",)),
    ]
    with pytest.raises(ItemError) as caught:
        collect(Listed(root, examples))
    assert str(root / "gone.png") in str(caught.value)
    assert "No such file" in str(caught.value)
    assert "--on-error skip" in str(caught.value)
    split, wanted = stored(Listed(root, examples), skip_errors=True)
    assert split.image_positions.tolist() == [-1, -1]
    assert split.image_lists is not None
    assert split.image_lists[0].tolist() == [-1, -1, 0]
    [skipped] = split.skipped
    assert skipped.id == "gone.png"
    assert "No such file" in skipped.error
    assert len(wanted.images) == 1
    assert len(wanted.questions) == 2


@pytest.mark.parametrize("name", ["a\0b.png", "\ud83d.png", "n" * 300 + ".png", "."])
def test_a_path_that_no_file_can_have(root: Path, name: str) -> None:
    examples = [Example(1, (1,), (name,), "a?", "x", ("x",))]
    with pytest.raises(ItemError, match="cannot be read"):
        collect(Listed(root, examples))
    found, wanted = collect(Listed(root, examples), skip_errors=True)
    assert len(found.skipped) == 1
    assert wanted.images == {}


@pytest.mark.parametrize("field", ["question", "answer"])
def test_a_text_that_is_no_unicode(root: Path, field: str) -> None:
    broken = {"question": "a?", "answer": "x"} | {field: "half \ud83d"}
    examples = [
        Example(1, (1,), ("0.png",), "a?", "x", ("x",)),
        Example(2, (1,), ("0.png",), broken["question"], broken["answer"], (broken["answer"],)),
    ]
    with pytest.raises((DatasetError, ItemError), match="2"):
        collect(Listed(root, examples))
    found, _ = collect(Listed(root, examples), skip_errors=True)
    assert len(found.skipped) == 1


def test_bad_examples_are_recorded(root: Path) -> None:
    dataset = Listed(root, [Example(1, (1,), ("0.png",), "a?", "x", ("x",))])
    dataset.problems = [Problem(7, "train.jsonl:3: no answer"), Problem(None, "line 4")]
    with pytest.raises(DatasetError, match=r"train\.jsonl:3"):
        collect(dataset)
    split, _ = stored(dataset, skip_errors=True)
    assert split.skipped == (
        Skipped("example", 7, "train.jsonl:3: no answer"),
        Skipped("example", None, "line 4"),
    )
    assert len(split) == 1


def test_a_split_without_examples_is_an_error(root: Path) -> None:
    with pytest.raises(DatasetError, match="has no examples"):
        collect(Listed(root, []))


def test_a_limit_reads_no_further(root: Path) -> None:
    class Ending(Listed):
        def examples(self, split: str, problems: list[Problem] | None = None) -> Iterator[Example]:
            yield from self._examples
            raise DatasetError("the fourth example is bad")

    examples = [Example(n, (1,), ("0.png",), f"{n}?", "x", ("x",)) for n in range(3)]
    found, wanted = collect(Ending(root, examples), limit=3)
    assert found.examples == len(wanted.questions) == 3
    found, wanted = collect(Ending(root, examples), limit=2)
    assert found.examples == len(wanted.questions) == 2
    with pytest.raises(DatasetError, match="fourth"):
        collect(Ending(root, examples))


def test_the_memo_spares_reading_and_sees_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = write_images(tmp_path, 4)
    examples = [Example(n, (n,), (name,), "a?", "x", ("x",)) for n, name in enumerate(names)]
    reads: list[str] = []

    def noting(path: str) -> BufferedIOBase:
        reads.append(Path(path).name)
        return open_member(path)

    monkeypatch.setattr("precompute.items.open_member", noting)
    time.sleep(0.06)  # what was written a moment ago may change again within one tick of the clock
    _, first = collect(Listed(tmp_path, examples))
    assert sorted(reads) == sorted(names)
    reads.clear()
    _, second = collect(Listed(tmp_path, examples))
    assert reads == []
    assert list(second.images) == list(first.images)
    (tmp_path / names[2]).write_bytes((tmp_path / names[0]).read_bytes() + b"!")
    _, third = collect(Listed(tmp_path, examples))
    assert reads == [names[2]]
    assert list(third.images)[2] == image_key(tmp_path / names[2])
    reads.clear()
    memo = Memo(tmp_path / "memo.sqlite")
    hashing = ImageHashing(memo, workers=1, rehash=True)
    assert len(list(hashing.hash_all(tmp_path, names))) == 4
    memo.close()
    assert reads == names


ANSWERS = st.sampled_from(["yes", "no", "", "café", "cafe\u0301", "2"])
EXAMPLES = st.lists(
    st.builds(
        Example,
        question_id=st.integers(-(2**63), 2**63 - 1) | st.text(max_size=3),
        image_ids=st.just((1,)),
        images=st.sampled_from([(name,) for name in PICTURES]),
        question=st.text(max_size=4),
        answer=st.none() | ANSWERS,
        answers=st.lists(ANSWERS, max_size=3).map(tuple),
        question_type=st.none() | st.sampled_from(["is", "how many", ""]),
        answer_type=st.none() | st.sampled_from(["yes/no", "number"]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=25)
@given(EXAMPLES)
def test_examples_survive(root: Path, examples: list[Example]) -> None:
    split, wanted = stored(Listed(root, examples))
    frame = split.to_pandas()
    assert len(frame) == len(split) == len(examples)
    as_text = any(isinstance(one.question_id, str) for one in examples)
    for one, (_, row) in zip(examples, frame.iterrows(), strict=True):
        assert row["question_id"] == (str(one.question_id) if as_text else one.question_id)
        assert row["question"] == unicodedata.normalize("NFC", one.question)
        assert row["image_key"] == image_key(root / one.images[0]).hex()
        assert row["answers"] == list(one.answers)
        for name in ("answer", "question_type", "answer_type"):
            expected = getattr(one, name)
            assert (expected is None and row[name] != row[name]) or row[name] == expected
    questions = [unicodedata.normalize("NFC", one.question) for one in examples]
    assert split.question_texts == list(dict.fromkeys(questions))
    assert list(wanted.questions.values()) == split.question_texts
    assert [key.tobytes() for key in split.question_keys] == [
        text_key(text) for text in split.question_texts
    ]
    assert len({key.tobytes() for key in split.image_keys}) == len(split.image_keys)
