"""Ten annotators a question: most give the true answer, a few do not.

Who deviates gives a synonym, a neighbouring count, the other of yes and no, a similar colour or
shape, or a list with one item changed. At most four deviate, so the true answer is the majority.
"""

from __future__ import annotations

from random import Random

ANNOTATORS = 10
MOST_DEVIATIONS = 4

SYNONYMS = {
    "circle": "disc",
    "square": "box",
    "diamond": "rhombus",
    "cross": "plus",
    "small": "little",
    "large": "big",
    "purple": "violet",
    "turquoise": "cyan",
    "top": "upper",
    "bottom": "lower",
}
MISTAKES = {
    "circle": "square",
    "square": "diamond",
    "triangle": "diamond",
    "star": "cross",
    "cross": "star",
    "diamond": "square",
    "small": "large",
    "large": "small",
    "red": "orange",
    "orange": "red",
    "yellow": "orange",
    "green": "blue",
    "turquoise": "blue",
    "blue": "purple",
    "purple": "blue",
    "black": "blue",
    "top": "bottom",
    "bottom": "top",
    "left": "right",
    "right": "left",
    "yes": "no",
    "no": "yes",
}
NUMBER_WORDS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
)


def annotate(truth: str, rng: Random) -> list[tuple[str, str]]:
    """Ten pairs of an answer and the annotator's confidence ("yes", "maybe" or "no")."""
    share = 0.05 if truth in ("yes", "no") else 0.09
    deviating = [rng.random() < share for _ in range(ANNOTATORS)]
    answers: list[tuple[str, str]] = []
    for deviates in deviating:
        if deviates and sum(given != truth for given, _ in answers) < MOST_DEVIATIONS:
            answers.append((_deviation(truth, rng), rng.choice(("yes", "maybe", "maybe", "no"))))
        else:
            answers.append((truth, "yes" if rng.random() < 0.93 else "maybe"))
    return answers


def _deviation(truth: str, rng: Random) -> str:
    """Another answer than the truth."""
    if truth.isdigit():
        count = int(truth)
        if rng.random() < 0.4 and count < len(NUMBER_WORDS):
            return NUMBER_WORDS[count]
        return str(count + 1 if count == 0 or rng.random() < 0.5 else count - 1)
    words = truth.replace(",", " ,").split(" ")
    places = [place for place, word in enumerate(words) if word in MISTAKES]
    place = rng.choice(places)
    table = SYNONYMS if words[place] in SYNONYMS and rng.random() < 0.5 else MISTAKES
    words[place] = table[words[place]]
    return " ".join(words).replace(" ,", ",")
