"""WUPS: how near an answer is in WordNet (Malinowski and Fritz 2014, arXiv 1410.0210).

An answer is a set of things apart by commas. Two things that are spelt alike have similarity 1;
otherwise it is the highest Wu-Palmer similarity of their noun senses, 0 where either has none,
and a tenth of it below the threshold. An answer scores the smaller of two products: over what was
predicted the nearest true thing, over what is true the nearest predicted one; two empty answers
score 1, an empty and another 0. The published settings are the thresholds 0.9 and 0.0; -1 gives
exact sets. Numbers and colours lie near each other in WordNet, so that "2" for "3" scores at 0.9.

Needs nltk and WordNet's own files; other editions than 3.0 give other figures.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from train.metrics.classification import NotComputable

THRESHOLDS = {"wups_0_0": 0.0, "wups_0_9": 0.9}
_FILES = ("data.noun", "index.noun", "noun.exc", "data.verb", "data.adj", "data.adv")
_LEXICOGRAPHERS = 45  # files of WordNet 3.0, whose names are not needed
Similarity = Callable[[str, str], float]


@cache
def wordnet_similarity(folder: Path) -> Similarity:
    """Similarity of two things by the WordNet files in a folder, remembered.

    Raises:
        NotComputable: no such files, or nltk is not installed.
    """
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise NotComputable(
            f"evaluation.wordnet = {str(folder)!r}: no {missing[0]} there; Debian's package "
            "wordnet-base has the files in /usr/share/wordnet"
        )
    try:
        import nltk.data
        from nltk.corpus.reader.wordnet import WordNetCorpusReader
    except ModuleNotFoundError:
        raise NotComputable(
            "evaluation.wordnet: nltk is not installed; pip install 'vqa-cache[metrics]'"
        ) from None

    class Reader(WordNetCorpusReader):  # type: ignore[misc]
        """Without what Debian leaves out and nouns do not need: the list of lexicographers' files,
        and the index of senses that maps one edition to another."""

        def open(self, file: str) -> Any:
            if file == "lexnames":
                return io.StringIO("".join(f"{n:02}\t{n}\t1\n" for n in range(_LEXICOGRAPHERS)))
            return super().open(file)

        def map_wn(self, version: str = "wordnet") -> dict[str, str]:
            return {}

    nltk.data.path.append(str(folder.resolve()))  # it reads nothing outside
    with warnings.catch_warnings():  # of other languages, which are not asked for
        warnings.simplefilter("ignore", UserWarning)
        reader = Reader(str(folder.resolve()), None)

    @cache
    def senses(thing: str) -> list[Any]:
        found: list[Any] = reader.synsets(thing.replace(" ", "_"), "n")
        return found

    @cache
    def similarity(one: str, other: str) -> float:
        if one == other:
            return 1.0
        pairs = (a.wup_similarity(b) or 0.0 for a in senses(one) for b in senses(other))
        return float(max(pairs, default=0.0))

    return similarity


def wups(predicted: str, truth: str, threshold: float, similarity: Similarity) -> float:
    """WUPS of one answer, 0 to 1."""
    guesses, truths = (_things(answer) for answer in (predicted, truth))
    if not guesses or not truths:
        return float(guesses == truths)

    def near(one: str, other: str) -> float:
        found = similarity(one, other)
        if threshold == -1:
            return float(one == other)
        return found if found >= threshold else 0.1 * found

    return min(
        math.prod(max(near(guess, truth) for truth in truths) for guess in guesses),
        math.prod(max(near(guess, truth) for guess in guesses) for truth in truths),
    )


def mean_wups(
    predicted: Sequence[str], truths: Sequence[str], folder: str | None
) -> dict[str, float]:
    """The mean over n answers for each of THRESHOLDS. Raises NotComputable."""
    if folder is None:
        raise NotComputable("evaluation.wordnet names no folder of WordNet's files")
    similarity = wordnet_similarity(Path(folder))
    counts: dict[tuple[str, str], int] = {}
    for pair in zip(predicted, truths, strict=True):
        counts[pair] = counts.get(pair, 0) + 1
    if not counts:
        raise NotComputable("no labelled example to evaluate")
    return {
        name: sum(n * wups(*pair, threshold, similarity) for pair, n in counts.items())
        / len(predicted)
        for name, threshold in THRESHOLDS.items()
    }


def _things(answer: str) -> list[str]:
    return [thing.strip() for thing in answer.split(",") if thing.strip()]
