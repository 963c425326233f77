"""From a question's text to its words, by the name of a tokeniser.

    whitespace      lower case; letters and digits hold together, 's and the like begin a word of
                    their own, every other mark is one
    sorted_unique   words of at least two characters, each once, in alphabetical order: what
                    scikit-learn's CountVectorizer made of the questions of some published systems,
                    which so never saw the order of words
    pkg:PACKAGE/FOLDER, dir:FOLDER   the pieces of the tokenizer.json in an installed package or a
                    folder

A tokenizer.json is read by the library `tokenizers`, which brings neither torch nor transformers:
its normaliser, its splitting and its model (word-piece, byte-level, unigram) are then those that
the encoder itself has, which no reading of the vocabulary alone would give.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from train.components.lookup import did_you_mean
from train.errors import TrainError

Tokeniser = Callable[[str], list[str]]
_WORDS = re.compile(r"['’]\w+|\w+|[^\w\s]")
_LONG_WORDS = re.compile(r"\b\w\w+\b")  # CountVectorizer's token_pattern


def whitespace(text: str) -> list[str]:
    """Lower case, punctuation apart: "What's that?" -> what 's that ?"""
    return _WORDS.findall(text.lower())


def sorted_unique(text: str) -> list[str]:
    """Words of two characters and more, each once, in alphabetical order."""
    return sorted(set(_LONG_WORDS.findall(text.lower())))


TOKENISERS: dict[str, Tokeniser] = {"whitespace": whitespace, "sorted_unique": sorted_unique}


@cache
def find_tokeniser(name: str) -> Tokeniser:
    """The tokeniser of that name.

    Raises:
        TrainError: an unknown name, or a tokenizer.json that is missing or cannot be read.
    """
    if name in TOKENISERS:
        return TOKENISERS[name]
    family, colon, place = name.partition(":")
    if not colon or family not in ("pkg", "dir"):
        raise TrainError(
            f"question.tokeniser = {name!r}: unknown tokeniser{did_you_mean(name, TOKENISERS)}; "
            f"known: {', '.join(TOKENISERS)}, pkg:PACKAGE/FOLDER, dir:FOLDER"
        )
    folder = Path(place) if family == "dir" else _package_folder(name, place)
    return _pieces(name, folder / "tokenizer.json")


def _package_folder(name: str, place: str) -> Path:
    package, _, inner = place.partition("/")
    try:
        found = importlib.util.find_spec(package)
    except Exception:  # a dotted name imports its parents, which may be missing or broken
        found = None
    if found is None or not found.submodule_search_locations:
        raise TrainError(
            f"question.tokeniser = {name!r}: package {package!r} is not installed; install it, or "
            "choose whitespace"
        )
    return Path(found.submodule_search_locations[0]) / inner


def _pieces(name: str, path: Path) -> Tokeniser:
    if not path.is_file():
        raise TrainError(
            f"question.tokeniser = {name!r}: no file {path}; expected a folder with one"
        )
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise TrainError(
            f"question.tokeniser = {name!r}: the library tokenizers is not installed; install it: "
            "pip install tokenizers"
        ) from None
    try:
        loaded = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        raise TrainError(
            f"question.tokeniser = {name!r}: {path} cannot be read as a tokenizer.json ({error})"
        ) from None
    loaded.no_truncation()
    loaded.no_padding()

    def pieces(text: str) -> list[str]:
        tokens: list[str] = loaded.encode(text, add_special_tokens=False).tokens
        return tokens

    return pieces
