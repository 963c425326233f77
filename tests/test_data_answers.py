"""Answer normalisation and VQA accuracy: values that the official evaluator of 2021 gives."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from data.answers import (
    CONTRACTIONS,
    clean,
    normalise,
    vqa_accuracy_official,
    vqa_accuracy_simple,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,000", "1000"),
        ("t-shirt", "t shirt"),
        ("black - white", "black white"),
        ("$5.50", "$5.50"),
        ("2:30", "2:30"),
        ("3.", "3"),
        (".5", ".5"),
        ("U.S.A.", "usa"),
        ("none", "0"),
        ("no one", "no 1"),
        ("left one", "left 1"),
        ("a", ""),
        ("A.", ""),
        ("the", ""),
        ("'yes'", "'yes'"),
        ("eleven", "eleven"),
        ("Ten", "10"),
        ("red/blue", "red blue"),
        ("red/blue, green", "red blue green"),
        # a digit-comma-digit anywhere deletes every mark
        ("t-shirt 1,000", "tshirt 1000"),
        ("yes!", "yes"),
        ("what?!yes", "what yes"),
        ("caf\u00e9 \u201cX\u201d", "caf\u00e9 \u201cx\u201d"),
        ("50%", "50%"),
        ("rock & roll", "rock & roll"),
        ("  The   Red  Car ", "red car"),
        ("dont", "don't"),
        ("somebody'd", "somebodyd"),
        ("somebodyd", "somebodyd"),
        # these keys carry a capital in the official table and never match
        ("Im", "im"),
        ("Ive", "ive"),
        ("its", "its"),
        ("hell", "hell"),
        ("wed", "wed"),
        ("", ""),
    ],
)
def test_normalise_gives_the_official_text(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_only_the_first_32_periods_go() -> None:
    assert normalise("x" + "." * 40) == "x" + "." * 8
    # a period before a digit is no match and does not count
    assert normalise(".5 " * 40 + "U.S.") == " ".join([".5"] * 40 + ["us"])


def test_clean_turns_newlines_and_tabs_into_spaces() -> None:
    assert clean(" red\tcar\n") == "red car"
    assert clean("a\n\nb") == "a  b"


def test_contractions_follow_from_the_rule() -> None:
    for less, word in CONTRACTIONS.items():
        if word == "somebodyd":
            continue
        assert len(word) == len(less) + 1
        assert any(word[:i] + word[i + 1 :] == less for i, c in enumerate(word) if c == "'")
    # 113 of the official keys can match and follow from the rule; one goes backwards
    assert len(CONTRACTIONS) == 114
    assert CONTRACTIONS["'ow'sat"] == CONTRACTIONS["ow's'at"] == "'ow's'at"
    assert CONTRACTIONS["couldn'tve"] == CONTRACTIONS["couldnt've"] == "couldn't've"
    assert CONTRACTIONS["yall"] == "y'all"
    for absent in ("its", "hell", "shell", "shed", "wed", "well", "id", "ill"):
        assert absent not in CONTRACTIONS


@pytest.mark.parametrize(
    ("matches", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0)]
)
def test_official_accuracy_of_ten_references(matches: int, expected: float) -> None:
    references = ["red"] * matches + ["blue"] * (9 - matches) + ["green"]
    assert vqa_accuracy_official("red", references) == pytest.approx(expected)


def test_official_accuracy_leaves_out_by_place_for_any_number() -> None:
    """The closed form equals the loop that the official evaluator runs."""
    drawn = random.Random(0)
    for _ in range(200):
        references = [drawn.choice(("red", "blue", "4")) for _ in range(drawn.randint(1, 14))]
        scores = []
        for place in range(len(references)):
            others = references[:place] + references[place + 1 :]
            scores.append(min(1.0, others.count("red") / 3))
        expected = sum(scores) / len(scores)
        assert vqa_accuracy_official("red", references) == pytest.approx(expected)


def test_unanimous_references_are_compared_raw() -> None:
    assert vqa_accuracy_official("Yes", ["yes"] * 10) == 0.0
    assert vqa_accuracy_official(" yes\n", ["yes"] * 9 + ["yes\t"]) == 1.0
    assert vqa_accuracy_official("cat", ["the cat"] * 10) == 0.0
    # one other answer, and both sides are normalised
    assert vqa_accuracy_official("cat", ["the cat"] * 9 + ["dog"]) == 1.0
    assert vqa_accuracy_official("Yes.", ["yes"] * 9 + ["no"]) == 1.0


SPLIT = ["dog"]  # one other answer, so that references disagree


@pytest.mark.parametrize(
    ("flavour", "prediction", "references", "expected"),
    [
        # references that agree: the prediction is normalised all the same, they are not
        ("official_2017", "the cat", ["the cat"] * 10, 0.0),
        ("official_2017", "none", ["none"] * 10, 0.0),
        ("official_2017", "Yes.", ["yes"] * 10, 1.0),
        # that disagree: without their punctuation alone
        ("official_2017", "t-shirt", ["t-shirt"] * 9 + SPLIT, 1.0),
        ("official_2017", "two", ["two"] * 9 + SPLIT, 0.0),
        ("official_2017", "The cat", ["cat"] * 9 + SPLIT, 1.0),
        # as they are
        ("vizwiz", "the bottle", ["the bottle"] * 10, 0.0),
        ("vizwiz", "The bottle.", ["bottle"] * 9 + SPLIT, 1.0),
        ("vizwiz", "t-shirt", ["t-shirt"] * 10, 0.0),
        ("vizwiz", "t shirt", ["t shirt"] * 2 + SPLIT * 8, 0.6),
        # both sides always
        ("evalai", "Black.", ["black"] * 10, 1.0),
        ("evalai", "two", ["2"] * 10, 1.0),
        ("evalai", "dog's", ["dog 's"] * 10, 1.0),
        ("evalai", "coca, cola?", ["coca cola"] * 10, 1.0),
        ("official", "Black.", ["black"] * 10, 0.0),
    ],
)
def test_other_evaluators_compare_other_forms(
    flavour: str, prediction: str, references: list[str], expected: float
) -> None:
    assert vqa_accuracy_official(prediction, references, flavour) == pytest.approx(expected)


def test_an_empty_prediction_matches_an_article() -> None:
    assert vqa_accuracy_official("", ["a"] * 4 + ["b"] * 6) == 1.0


def test_one_reference_scores_zero_officially_and_a_third_simply() -> None:
    assert vqa_accuracy_official("red", ["red"]) == 0.0
    assert vqa_accuracy_simple("red", ["red"]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("matches", "expected"), [(0, 0.0), (1, 1 / 3), (2, 2 / 3), (3, 1.0)])
def test_simple_accuracy_uses_all_references(matches: int, expected: float) -> None:
    references = ["The red."] * matches + ["blue"] * (10 - matches)
    assert vqa_accuracy_simple("red", references) == pytest.approx(expected)


def test_no_references_is_an_error() -> None:
    with pytest.raises(ValueError, match="found no references, expected one at least"):
        vqa_accuracy_official("red", [])


def test_references_stay_as_they_are() -> None:
    references = ["The red", "two"]
    vqa_accuracy_official("red", references)
    assert references == ["The red", "two"]


def test_answers_needs_the_standard_library_alone() -> None:
    code = "import sys, data.answers; print(*(m.split('.')[0] for m in sys.modules))"
    modules = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(modules) <= sys.stdlib_module_names | {"data", "__main__"}
    assert "data.example" not in modules
