"""The answer vocabulary: counting, ties, and what happens to answers outside it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data.answers import KEPT_APART, merge_plurals
from train.errors import TrainError
from train.inputs.vocabulary import (
    Vocabulary,
    count_answers,
    listed,
    most_frequent,
    plurals_in,
    read_vocabulary,
    spelt_apart,
)

TEXTS = ["red", "blue", "", "a dog", "dog"]


def test_rare_answers_are_left_out_by_their_count() -> None:
    counts = Counter({"red": 4, "blue": 2, "ash": 2, "pink": 1})
    assert most_frequent(counts, k=9, min_count=2).answers == ("red", "ash", "blue")
    assert most_frequent(counts, k=1, min_count=2).answers == ("red",)
    # counted together, and only then compared
    merged = most_frequent(counts, k=9, min_count=3, merged={"pink": "blue"})
    assert merged.answers == ("red", "blue")
    with pytest.raises(
        TrainError, match=r"answers.min_count = 5: .* 'red', occurs 4 times; expected"
    ):
        most_frequent(counts, k=9, min_count=5)


def test_most_frequent_first_and_ties_in_alphabetical_order() -> None:
    counts = Counter({"blue": 2, "red": 3, "ash": 2, "zinc": 2, "one": 1})
    assert most_frequent(counts, k=3).answers == ("red", "ash", "blue")


def test_counts_skip_unlabelled_and_keep_the_empty_answer() -> None:
    codes = np.array([0, 0, -1, 2, 4], np.int32)
    assert count_answers(codes, TEXTS, normalised=False) == {"red": 2, "": 1, "dog": 1}


def test_normalising_merges_answers() -> None:
    codes = np.array([3, 4, 4, 0], np.int32)
    assert count_answers(codes, TEXTS, normalised=True) == {"dog": 3, "red": 1}
    vocabulary = Vocabulary(("dog",), normalised=True)
    assert vocabulary.truths(codes, TEXTS).tolist() == [0, 0, 0, 1]


def test_truths_outside_are_distinct_and_beyond_the_classes() -> None:
    vocabulary = Vocabulary(("red", "blue"))
    codes = np.array([0, 3, 1, 4, 3, -1, 2], np.int32)
    truths = vocabulary.truths(codes, TEXTS).tolist()
    assert truths[0] == 0
    assert truths[2] == 1
    assert truths[5] == -1
    outside = [truths[i] for i in (1, 3, 4, 6)]
    assert outside[0] == outside[2]
    assert sorted(set(outside)) == [2, 3, 4]


def test_other_as_a_class_takes_everything_outside() -> None:
    vocabulary = most_frequent(Counter({"red": 3, "blue": 1}), k=1, other="class")
    assert vocabulary.answers == ("red", "other")
    codes = np.array([0, 1, 3, 2], np.int32)
    assert vocabulary.truths(codes, TEXTS).tolist() == [0, 1, 1, 1]


def test_other_that_is_an_answer_is_not_added_twice() -> None:
    vocabulary = most_frequent(Counter({"other": 3, "blue": 1}), k=1, other="class")
    assert vocabulary.answers == ("other",)


def test_no_answer_at_all_is_an_error() -> None:
    with pytest.raises(TrainError, match="the training part has no answer; expected labelled"):
        most_frequent(Counter(), k=5)


def test_vocabulary_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.txt"
    path.write_text("blue\nred\nblue\ngreen\n")
    assert read_vocabulary(path, k=2).answers == ("blue", "red")
    with pytest.raises(TrainError, match=r"cannot be read .* expected 'train' or a text file"):
        read_vocabulary(tmp_path / "absent.txt", k=2)
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(TrainError, match="the file has no line"):
        read_vocabulary(tmp_path / "empty.txt", k=2)


def test_a_bom_is_no_part_of_the_first_answer(tmp_path: Path) -> None:
    path = tmp_path / "answers.txt"
    path.write_bytes("yes\r\nno\n".encode("utf-8-sig"))
    assert read_vocabulary(path, k=9).answers == ("yes", "no")


def test_classes_that_differ_in_spelling_alone_are_told() -> None:
    [told] = spelt_apart(Vocabulary(("yes", "no", "Yes", "yes ", "YES"), False, "wrong"))
    assert told == (
        "4 classes are 1 answers in several spellings ('yes', 'Yes', 'yes ', 'YES'); "
        "answers.normalise=vqa makes one class of each"
    )
    assert spelt_apart(Vocabulary(("yes", "no"), False, "wrong")) == []
    assert spelt_apart(Vocabulary(("yes", "no"), True, "wrong")) == []


def test_a_singular_and_its_plural_are_one_answer_the_more_frequent_of_them() -> None:
    counts = Counter({"dogs": 4, "dog": 6, "cats": 2, "cat": 2, "trees": 3, "bus": 9, "bu": 1})
    merged = plurals_in(counts, KEPT_APART)
    assert merged == {"dogs": "dog", "cat": "cats"}  # of equals the plural; a bus is kept apart
    found = most_frequent(counts, k=2, merged=merged)
    assert found.answers == ("dog", "bus")
    assert found.merged == {"dogs": "dog"}  # what no class stands for is kept as it is
    assert found.truths(np.array([0, 1, 2], np.int32), ["dogs", "cat", "dog"]).tolist() == [0, 2, 0]


def test_nothing_is_substituted_twice() -> None:
    chain = {"as": "a", "a": "b"}
    counts = {"as": 1, "a": 2, "b": 3}
    assert merge_plurals(counts, chain.get, ()) == {"as": "a", "a": "b"}
    vocabulary = most_frequent(Counter(counts), k=5, merged=merge_plurals(counts, chain.get, ()))
    assert vocabulary.form("as") == "a"
    assert vocabulary.answers == ("b", "a")


def test_a_vocabulary_may_be_listed() -> None:
    found = listed(["1", "2", "two", "3"], k=3)
    assert found.answers == ("1", "2", "two")
    assert listed(["1", "two", "2", "3"], k=9, normalised=True).answers == ("1", "2", "3")
