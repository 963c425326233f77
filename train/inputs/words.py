"""The words of questions: a vocabulary, ids, and vectors that others trained.

Id 0 is padding and id 1 any word that the vocabulary does not have.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from train.config.seeds import derive_seed
from train.errors import TrainError
from train.inputs.tokenisers import find_tokeniser

UNKNOWN = 1
SPECIAL = 2  # ids before that of the first word
SEEDED = re.compile(r"random=(?P<seed>[0-9]{1,18}):dim=(?P<dim>[0-9]{1,4})")
LONGEST_LINE = 1 << 20  # bytes of a file of vectors: what is longer is no text of vectors
Row = npt.NDArray[np.float32]


@dataclass(frozen=True)
class WordVocabulary:
    """Words with an id each, in alphabetical order from id 2.

    Attributes:
        words: those of the training questions.
        tokeniser: the name of what makes them of a text.
    """

    words: tuple[str, ...]
    tokeniser: str

    def __len__(self) -> int:
        """How many ids there are, with padding and the unknown word."""
        return SPECIAL + len(self.words)

    def ids(self, text: str) -> list[int]:
        """A question's ids. Words that the vocabulary lacks are unknown; `sorted_unique` leaves
        them out, as what it stands for did."""
        known = self._known
        found = [known.get(word, UNKNOWN) for word in find_tokeniser(self.tokeniser)(text)]
        if self.tokeniser == "sorted_unique":
            return [number for number in found if number != UNKNOWN]
        return found

    def describe(self) -> dict[str, Any]:
        """What `read_description` makes the same vocabulary of: plain values, saved with a run."""
        return {"tokeniser": self.tokeniser, "words": list(self.words)}

    @cached_property
    def _known(self) -> Mapping[str, int]:
        return {word: SPECIAL + place for place, word in enumerate(self.words)}


def read_description(described: Mapping[str, Any]) -> WordVocabulary:
    """A vocabulary as `describe` gave it."""
    return WordVocabulary(tuple(described["words"]), described["tokeniser"])


def fit_words(texts: Iterable[str], tokeniser: str, *, min_count: int = 1) -> WordVocabulary:
    """The vocabulary of the training questions: words that occur at least `min_count` times.

    Raises:
        TrainError: an unknown tokeniser, or no word is frequent enough.
    """
    split = find_tokeniser(tokeniser)
    asked = Counter(texts)
    counts: Counter[str] = Counter()
    for text, times in asked.items():
        for word in split(text):
            counts[word] += times
    words = tuple(sorted(word for word, count in counts.items() if count >= min_count))
    if not words:
        raise TrainError(
            f"question.min_count = {min_count}: none of the {len(counts):,} words of "
            f"{asked.total():,} training questions is as frequent; expected a smaller number"
        )
    return WordVocabulary(words, tokeniser)


# ---------------------------------------------------------------- vectors


def read_vectors(path: Path, vocabulary: WordVocabulary) -> tuple[torch.Tensor, str]:
    """The vectors of a vocabulary's words, and one line that says how many were found.

    The file is GloVe's text (a word and its numbers a line), the text of word2vec and fastText
    (the same after a line with the number of words and the width), or a matrix `.npy` beside a
    file `.words` of the same name with one word a line. It is read line by line, and only what the
    vocabulary asks for is kept.

    Returns:
        float32 [len(vocabulary), width]. Padding is zero, the unknown word what the file has for
        "<unk>", "[UNK]" or "unk", and a word that the file lacks is as the unknown one.

    Raises:
        TrainError: the file cannot be read; a line is broken, or as wide as no other; a word that
            is asked for is there twice.
    """
    wanted = {word: SPECIAL + place for place, word in enumerate(vocabulary.words)}
    for name in ("unk", "[UNK]", "<unk>"):
        wanted.setdefault(name, UNKNOWN)
    lines: dict[str, int] = {}
    rows: dict[int, Row] = {}
    try:
        entries = _matrix(path, wanted) if path.suffix == ".npy" else _text(path, wanted)
        for line, word, row in entries:
            if word in lines:
                raise TrainError(
                    f"{path}:{line}: {word!r} has a vector in line {lines[word]} already; expected "
                    "each word once"
                )
            lines[word] = line
            rows[wanted[word]] = row
    except OSError as error:
        raise TrainError(
            f"question.vectors = {str(path)!r}: cannot be read ({error.strerror or error})"
        ) from None
    found = sum(word in lines for word in vocabulary.words)
    if not found:
        raise TrainError(
            f"question.vectors = {str(path)!r}: has none of the {len(vocabulary.words):,} words of "
            "the questions; expected vectors of words as the tokeniser makes them"
        )
    unknown = rows.get(UNKNOWN, np.zeros_like(next(iter(rows.values()))))
    table = np.stack([rows.get(number, unknown) for number in range(len(vocabulary))])
    table[0] = 0
    return torch.from_numpy(table), _told(path, vocabulary, lines, found)


def seeded_vectors(named: str, vocabulary: WordVocabulary) -> torch.Tensor:
    """Vectors that nobody trained, for want of a file: "random=0:dim=50" are normal numbers drawn
    from the seed and the word. float32 [len(vocabulary), width]; padding is zero.

    Raises:
        TrainError: the text is not of that form.
    """
    found = SEEDED.fullmatch(named)
    if found is None or not int(found["dim"]):
        raise TrainError(f"question.vectors = {named!r}: expected random=SEED:dim=WIDTH, or a file")
    width = int(found["dim"])
    rows = [torch.zeros(width)]
    for word in ("<unk>", *vocabulary.words):
        draw = torch.Generator().manual_seed(derive_seed(int(found["seed"]), "word", word))
        rows.append(torch.randn(width, generator=draw))
    return torch.stack(rows)


def _told(path: Path, vocabulary: WordVocabulary, lines: Mapping[str, int], found: int) -> str:
    lacking = [word for word in vocabulary.words if word not in lines]
    examples = f" ({', '.join(map(repr, lacking[:5]))})" if lacking else ""
    return (
        f"{path.name}: vectors of {found:,} words; {len(lacking):,} of {len(vocabulary.words):,} "
        f"are not found{examples}"
    )


def _text(path: Path, wanted: Mapping[str, int]) -> Iterator[tuple[int, str, Row]]:
    """Line, word and vector of each word that is asked for."""
    with path.open("rb") as file:
        first = _line(path, file, 1)
        width, number = len(first) - 1, 1
        if len(first) == 2 and all(piece.isdigit() for piece in first):
            width, number, first = int(first[1]), 2, _line(path, file, 2)
        while first:
            if len(first) <= width or not width:
                raise _broken(path, number, f"{len(first) - 1} numbers", width)
            if len(first) > width + 1 and _is_number(first[-width - 1]):
                raise _broken(path, number, f"{len(first) - 1} numbers", width)
            word = b" ".join(first[:-width]).decode("utf-8", errors="replace")  # some have spaces
            if word in wanted:
                yield number, word, _row(path, number, first[-width:])
            number += 1
            first = _line(path, file, number)


def _line(path: Path, file: BinaryIO, number: int) -> list[bytes]:
    """The pieces of a line; none at the end of the file."""
    line = file.readline(LONGEST_LINE)
    if not line:
        return []
    pieces = line.rstrip(b" \t\r\n").replace(b"\t", b" ").split(b" ")
    if len(line) == LONGEST_LINE or len(pieces) < 2:
        raise TrainError(
            f"{path}:{number}: broken line; expected a word and its numbers, separated by spaces"
        )
    return pieces


def _row(path: Path, number: int, pieces: list[bytes]) -> Row:
    try:
        row = np.array([float(piece) for piece in pieces], dtype=np.float32)
    except ValueError as error:
        raise _broken(path, number, str(error), len(pieces)) from None
    if not np.isfinite(row).all():
        raise _broken(path, number, "a number that is not finite", len(pieces))
    return row


def _is_number(piece: bytes) -> bool:
    try:
        float(piece)
    except ValueError:
        return False
    return True


def _broken(path: Path, number: int, found: str, width: int) -> TrainError:
    return TrainError(
        f"{path}:{number}: broken line: found {found}; expected a word and {width} numbers"
    )


def _matrix(path: Path, wanted: Mapping[str, int]) -> Iterator[tuple[int, str, Row]]:
    """The same of a matrix, which is mapped, and the file of its words."""
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise TrainError(f"question.vectors = {str(path)!r}: no matrix ({error})") from None
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise TrainError(
            f"question.vectors = {str(path)!r}: {matrix.dtype} {list(matrix.shape)}; expected "
            "floating point numbers [words, width]"
        )
    beside = path.with_suffix(".words")
    number = 0
    with beside.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number > len(matrix):
                break
            word = line.rstrip(b"\r\n").decode("utf-8", errors="replace")
            if word in wanted:
                row = matrix[number - 1].astype(np.float32)
                if not np.isfinite(row).all():
                    raise _broken(path, number, "a number that is not finite", matrix.shape[1])
                yield number, word, row
    if number != len(matrix):
        more = "more than " if number > len(matrix) else ""
        raise TrainError(
            f"{beside}: {more}{min(number, len(matrix)):,} words; expected {len(matrix):,}, one "
            f"for each row of {path.name}"
        )
