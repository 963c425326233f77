"""Generated questions whose lengths follow those of VQA v2.

A length counts the word pieces of MiniLM's tokenizer with [CLS] and [SEP]. Every word below is one
word piece, so a question of n words and a question mark is n + 3 long.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from PIL import Image

# length -> how many of 5,000 questions: shortest 5, median 9, longest 26
HISTOGRAM = {
    5: 100, 6: 350, 7: 750, 8: 1050, 9: 900, 10: 650, 11: 430, 12: 280, 13: 180, 14: 110, 15: 70,
    16: 45, 17: 30, 18: 20, 19: 12, 20: 8, 21: 5, 22: 4, 23: 2, 24: 2, 25: 1, 26: 1,
}  # fmt: skip
_PIECES_BESIDE_WORDS = 3  # [CLS], the question mark, [SEP]
_OPENINGS = ("what", "which", "whose", "is", "are", "how", "where", "why", "who", "does")
_ADJECTIVES = ("red", "blue", "green", "small", "large", "old", "young", "wooden", "wet", "empty")
_NOUNS = (
    "dog", "cat", "man", "woman", "table", "chair", "car", "bus", "street", "tree", "house",
    "window", "boat", "horse", "bird", "plate", "phone", "clock", "sign", "ball", "shirt", "hat",
)  # fmt: skip
_PREPOSITIONS = ("near", "behind", "under", "above", "beside", "with", "on", "in")


def make_questions(count: int, seed: int = 0) -> list[str]:
    """Distinct questions in random order; fewer than 5,000 have evenly spaced lengths of it."""
    lengths = [length for length, times in HISTOGRAM.items() for _ in range(times)]
    draw = random.Random(seed)
    questions: dict[str, None] = {}
    for number in range(count):
        words = lengths[number * len(lengths) // count] - _PIECES_BESIDE_WORDS
        while (question := _question(words, draw)) in questions:
            pass
        questions[question] = None
    shuffled = list(questions)
    draw.shuffle(shuffled)
    return shuffled


def write_questions(root: Path, count: int) -> list[str]:
    """A `jsonl` dataset of one split, every question about the same small image."""
    root.mkdir()
    Image.new("RGB", (64, 48)).save(root / "0.jpg")
    questions = make_questions(count)
    entries = [{"image": "0.jpg", "question": question, "answer": "yes"} for question in questions]
    (root / "train.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return questions


def _question(words: int, draw: random.Random) -> str:
    """An opening, then nouns, prepositions, articles and adjectives in turn."""
    turns = (_NOUNS, _PREPOSITIONS, ("the", "a"), _ADJECTIVES)
    said = [draw.choice(_OPENINGS)]
    said += [draw.choice(turns[position % len(turns)]) for position in range(words - 1)]
    return " ".join(said) + "?"
