"""WUPS on a WordNet of five senses in WordNet's own format, and on the real one where it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_train_small_cache import result_of, run_of

from train.metrics.classification import NotComputable
from train.metrics.wups import mean_wups, wordnet_similarity, wups

REAL = Path("/usr/share/wordnet")
# word(s) of a sense -> the sense above it
SENSES = {
    "entity": None,
    "animal": "entity",
    "cat": "animal",
    "dog": "animal",
    "garbage_bin": "entity",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.noun and index.noun as wndb(5) has them: a sense is named by its byte offset."""
    pytest.importorskip("nltk")
    folder = tmp_path_factory.mktemp("wordnet")
    head = "".join(f"  {n} a line of the licence of WordNet 3.0\n" for n in range(2))
    lines = {}
    for word, above in SENSES.items():
        pointers = "001 @ {:08d} n 0000" if above else "000"
        lines[word] = "{:08d}" + f" 03 n 01 {word} 0 {pointers} | a thing  \n"
    offsets, at = {}, len(head)
    for word, line in lines.items():
        offsets[word] = at
        at += len(line.format(0, 0))
    data = [line.format(offsets[w], offsets.get(SENSES[w] or "", 0)) for w, line in lines.items()]
    index = [f"{w} n 1 1 @ 1 0 {offsets[w]:08d}  \n" for w in sorted(SENSES)]
    (folder / "data.noun").write_text(head + "".join(data))
    (folder / "index.noun").write_text(head + "".join(index))
    for part in ("verb", "adj", "adv"):
        (folder / f"data.{part}").write_text(head)
        (folder / f"index.{part}").write_text(head)
    for part in ("noun", "verb", "adj", "adv"):
        (folder / f"{part}.exc").write_text("")
    return folder


@pytest.mark.parametrize(
    ("predicted", "truth", "threshold", "expected"),
    [
        # the common sense animal is at depth 2 of entity, cat and dog at 3: 2 x 2 / (3 + 3)
        ("cat", "dog", 0.0, 2 / 3),
        ("cat", "dog", 0.9, 0.1 * 2 / 3),
        ("cat", "animal", 0.0, 4 / 5),
        ("cat", "cat", 0.9, 1.0),
        ("unicorn", "unicorn", 0.9, 1.0),  # spelt alike, though in no WordNet
        ("unicorn", "cat", 0.0, 0.0),
        ("garbage bin", "entity", 0.0, 2 / 3),  # a space is an underscore there
        # products over sets, the smaller of the two directions
        ("cat, dog", "dog", 0.0, 2 / 3),
        ("dog", "cat, dog", 0.0, 2 / 3),
        (" dog,cat ", "cat, dog", 0.9, 1.0),
        ("cat, dog", "animal", 0.0, (4 / 5) ** 2),
        ("cat, dog", "dog", -1, 0.0),
        ("cat, dog", "dog, cat", -1, 1.0),
        ("", "", 0.9, 1.0),
        ("", "cat", 0.0, 0.0),
        ("cat", ",", 0.0, 0.0),
    ],
)
def test_values_worked_out_by_hand(
    predicted: str, truth: str, threshold: float, expected: float, small: Path
) -> None:
    similarity = wordnet_similarity(small)
    assert wups(predicted, truth, threshold, similarity) == pytest.approx(expected)


def test_the_mean_counts_every_example(small: Path) -> None:
    found = mean_wups(["cat", "cat", "cat", "dog"], ["dog", "dog", "cat", "entity"], str(small))
    assert found["wups_0_0"] == pytest.approx((2 / 3 + 2 / 3 + 1 + 1 / 2) / 4)
    assert found["wups_0_9"] == pytest.approx((0.1 * 4 / 3 + 1 + 0.05) / 4)


def test_absent_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(NotComputable, match=r"no data.noun there; Debian's package wordnet-base"):
        mean_wups(["a"], ["a"], str(tmp_path))
    with pytest.raises(NotComputable, match="names no folder of WordNet"):
        mean_wups(["a"], ["a"], None)


def test_a_run_has_it_or_the_reason(tmp_path: Path, cache: Path, small: Path) -> None:
    test = result_of(run_of(tmp_path, cache))["metrics"]["test"]
    assert test["wups_0_9"] is None
    assert test["reasons"]["wups_0_9"] == "evaluation.wordnet names no folder of WordNet's files"
    run = run_of(tmp_path, cache, f"evaluation.wordnet={small}")
    test = result_of(run)["metrics"]["test"]
    # the answers here are in no such WordNet, so only what is spelt alike scores
    assert test["wups_0_9"] == test["wups_0_0"] == pytest.approx(test["accuracy"])


@pytest.mark.skipif(not (REAL / "data.noun").is_file(), reason="WordNet is not installed")
def test_the_real_wordnet() -> None:
    pytest.importorskip("nltk")
    similarity = wordnet_similarity(REAL)
    assert wups("cat", "dog", 0.0, similarity) == pytest.approx(0.857, abs=1e-3)
    assert wups("chair", "table", 0.9, similarity) < wups("chair", "armchair", 0.9, similarity)
