"""Questions about a scene: templates, each a wording and the program that answers it.

A quarter is asked about where one shape alone lies in it, so more than half of the questions depend
on where things are. Questions with yes and no draw their answer first and are then looked for, so
their wording gives little away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from data.shapes.programs import Ambiguous, Program, answer
from data.shapes.scene import (
    COLOUR_WEIGHTS,
    COLOURS,
    HALVES,
    QUARTERS,
    SHAPE_WEIGHTS,
    SHAPES,
    Scene,
)

Asked = tuple[str, Program]
Wanted = dict[str, str]

IN_QUARTER = ("in the {}", "in the {} corner", "at the {}")
REFERENCES = (
    ("colour",),
    ("shape",),
    ("colour", "shape"),
    ("size", "shape"),
    ("size", "colour"),
    ("size", "colour", "shape"),
)
DIRECTION_WORDS = {
    "left of": "to the left of",
    "right of": "to the right of",
    "above": "above",
    "below": "below",
}


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its true answer, and what makes it true."""

    text: str
    answer: str
    question_type: str
    answer_type: str
    program: Program
    shapes: tuple[int, ...]


def ask(scene: Scene, rng: Random, asked: set[str]) -> Question:
    """A question about the scene; one out of `asked` only where forty draws give nothing new."""
    spare = None
    for attempt in range(1000):
        template = rng.choices(TEMPLATES, _WEIGHTS)[0]
        question = _find(template, scene, rng)
        if question is None:
            continue
        if question.text not in asked:
            return question
        spare = question
        if attempt >= 40:
            break
    if spare is None:
        raise RuntimeError(f"no question found for scene {scene.image_id}: a template must fit")
    return spare


def _find(template: Template, scene: Scene, rng: Random) -> Question | None:
    truth_wanted = rng.choice(("yes", "no")) if template.balanced else None
    for _ in range(12):
        try:
            text, program = template.build(scene, rng)
            truth, shapes = answer(program, scene)
        except Ambiguous:
            continue
        if truth_wanted in (None, truth):
            return Question(
                text, truth, template.question_type, _answer_type(truth), program, shapes
            )
    return None


def _answer_type(truth: str) -> str:
    if truth in ("yes", "no"):
        return "yes/no"
    return "number" if truth.isdigit() else "other"


def _noun(wanted: Wanted) -> str:
    words = [wanted[key] for key in ("size", "colour") if key in wanted]
    return " ".join([*words, wanted.get("shape", "shape")])


def _a(wanted: Wanted) -> str:
    noun = _noun(wanted)
    return f"an {noun}" if noun.startswith("orange") else f"a {noun}"


def _quarter(rng: Random, quarter: str) -> str:
    return rng.choice(IN_QUARTER).format(quarter)


def _reference(scene: Scene, rng: Random) -> Wanted:
    """Attributes of some shape; whether they fit that one alone shows when they are used."""
    shape = rng.choice(scene.shapes)
    return {key: str(getattr(shape, key)) for key in rng.choice(REFERENCES)}


def _any_attributes(rng: Random) -> Wanted:
    """Attributes drawn as the scenes draw them, in the scene or not."""
    keys = rng.choice(REFERENCES)
    drawn = {
        "shape": rng.choices(SHAPES, SHAPE_WEIGHTS)[0],
        "colour": rng.choices(tuple(COLOURS), COLOUR_WEIGHTS)[0],
        "size": rng.choice(("small", "large")),
    }
    return {key: drawn[key] for key in keys}


def _at_quarter(attribute: str, *wordings: str) -> Callable[[Scene, Random], Asked]:
    def build(scene: Scene, rng: Random) -> Asked:
        quarter = rng.choice(QUARTERS)
        text = rng.choice(wordings).format(f"shape {_quarter(rng, quarter)}")
        return text, [attribute, ["only", ["filter", {"quarter": quarter}]]]

    return build


def _at_quarter_among(attribute: str, *wordings: str) -> Callable[[Scene, Random], Asked]:
    def build(scene: Scene, rng: Random) -> Asked:
        shape = rng.choice(scene.shapes)
        key = rng.choice([key for key in ("shape", "colour", "size") if key != attribute])
        wanted = {key: str(getattr(shape, key))}
        text = rng.choice(wordings).format(f"{_noun(wanted)} {_quarter(rng, shape.quarter)}")
        return text, [attribute, ["only", ["filter", wanted | {"quarter": shape.quarter}]]]

    return build


def _extreme(attribute: str, *wordings: str) -> Callable[[Scene, Random], Asked]:
    def build(scene: Scene, rng: Random) -> Asked:
        extreme = rng.choice(("leftmost", "rightmost", "topmost", "lowest"))
        text = rng.choice(wordings).format(f"{extreme} shape")
        return text, [attribute, [extreme, ["filter", {}]]]

    return build


def _unique(attribute: str, *wordings: str) -> Callable[[Scene, Random], Asked]:
    def build(scene: Scene, rng: Random) -> Asked:
        wanted = _reference(scene, rng)
        if attribute in wanted:
            raise Ambiguous
        return rng.choice(wordings).format(_noun(wanted)), [attribute, ["only", ["filter", wanted]]]

    return build


def _count(scene: Scene, rng: Random) -> Asked:
    # mostly of what the scene shows: otherwise nearly every answer would be 0
    wanted = _reference(scene, rng) if rng.random() < 0.75 else _any_attributes(rng)
    if rng.random() < 0.2:
        wanted = {}
    wording = rng.choice(("how many {}s are there?", "what number of {}s do you see?"))
    return wording.format(_noun(wanted).replace("cross", "crosse")), ["count", ["filter", wanted]]


def _count_half(scene: Scene, rng: Random) -> Asked:
    half = rng.choice(HALVES)
    wording = rng.choice(("how many shapes are in the {} half?", "count the shapes in the {} half"))
    return wording.format(half), ["count", ["filter", {"half": half}]]


def _exists(scene: Scene, rng: Random) -> Asked:
    # half from the scene: otherwise a rare combination would nearly always be a "no"
    wanted = _reference(scene, rng) if rng.random() < 0.5 else _any_attributes(rng)
    wording = rng.choice(("is there {}?", "is {} in the picture?", "do you see {}?"))
    return wording.format(_a(wanted)), ["exists", ["filter", wanted]]


def _exists_in_quarter(scene: Scene, rng: Random) -> Asked:
    if rng.random() < 0.5:
        shape = rng.choice(scene.shapes)
        quarter, drawn = (
            shape.quarter,
            {key: str(getattr(shape, key)) for key in ("colour", "shape")},
        )
    else:
        quarter, drawn = rng.choice(QUARTERS), _any_attributes(rng)
    key = rng.choice(tuple(drawn))
    wanted = {key: drawn[key]}
    wording = rng.choice(("is there {} {}?", "do you see {} {}?"))
    text = wording.format(_a(wanted), _quarter(rng, quarter))
    return text, ["exists", ["filter", wanted | {"quarter": quarter}]]


def _occupied(scene: Scene, rng: Random) -> Asked:
    quarter = rng.choice(QUARTERS)
    wording = rng.choice(("is there a shape {}?", "is anything {}?"))
    return wording.format(_quarter(rng, quarter)), ["exists", ["filter", {"quarter": quarter}]]


def _where(scene: Scene, rng: Random) -> Asked:
    shape = rng.choice(scene.shapes)
    keys = rng.choice((("colour",), ("colour",), ("colour", "shape"), ("shape",)))
    wanted = {key: str(getattr(shape, key)) for key in keys}
    wording = rng.choice(("where is the {}?", "in which corner is the {}?"))
    return wording.format(_noun(wanted)), ["quarter", ["only", ["filter", wanted]]]


def _more_in_half(scene: Scene, rng: Random) -> Asked:
    first, second = rng.choice(
        (("left", "right"), ("right", "left"), ("top", "bottom"), ("bottom", "top"))
    )
    wording = rng.choice(
        (
            "are there more shapes in the {} half than in the {} half?",
            "does the {} half have more shapes than the {} half?",
        )
    )
    halves: list[Program] = [["filter", {"half": half}] for half in (first, second)]
    return wording.format(first, second), ["more", *halves]


def _two_references(scene: Scene, rng: Random) -> tuple[Wanted, Wanted]:
    first, second = _reference(scene, rng), _reference(scene, rng)
    if first == second:
        raise Ambiguous
    return first, second


def _is_beside(scene: Scene, rng: Random) -> Asked:
    first, second = _two_references(scene, rng)
    direction = rng.choice(tuple(DIRECTION_WORDS))
    text = f"is the {_noun(first)} {DIRECTION_WORDS[direction]} the {_noun(second)}?"
    return text, ["is", direction, ["only", ["filter", first]], ["only", ["filter", second]]]


def _colour_beside(scene: Scene, rng: Random) -> Asked:
    wanted = _reference(scene, rng)
    direction = rng.choice(tuple(DIRECTION_WORDS))
    text = f"what colour is the shape {DIRECTION_WORDS[direction]} the {_noun(wanted)}?"
    return text, ["colour", ["only", [direction, ["only", ["filter", wanted]]]]]


def _describe_quarter(scene: Scene, rng: Random) -> Asked:
    quarter = rng.choice(QUARTERS)
    attributes = rng.choice((["colour", "shape"], ["size", "colour", "shape"]))
    wording = "name colour and shape {}" if len(attributes) == 2 else "describe the shape {}"
    one: Program = ["only", ["filter", {"quarter": quarter}]]
    return wording.format(_quarter(rng, quarter)), ["describe", attributes, one]


def _list_half(scene: Scene, rng: Random) -> Asked:
    half = rng.choice(HALVES)
    axis = "y" if half in ("left", "right") else "x"
    attributes = rng.choice((["colour"], ["shape"], ["colour", "shape"], ["colour", "shape"]))
    listed: Program = ["list", attributes, axis, ["filter", {"half": half}]]
    if not 2 <= len(answer(listed, scene)[1]) <= 3:
        raise Ambiguous
    named = {"colour": "colours", "shape": "shapes", "colour shape": "colours and shapes"}
    order = "from top to bottom" if axis == "y" else "from left to right"
    return f"list the {named[' '.join(attributes)]} in the {half} half {order}", listed


def _list_all(scene: Scene, rng: Random) -> Asked:
    if len(scene.shapes) > 5:
        raise Ambiguous
    attribute, axis = rng.choice(("colour", "shape")), rng.choice(("x", "y"))
    order = "from top to bottom" if axis == "y" else "from left to right"
    return f"list all {attribute}s {order}", ["list", [attribute], axis, ["filter", {}]]


def _both_exist(scene: Scene, rng: Random) -> Asked:
    first, second = _any_attributes(rng), _any_attributes(rng)
    if first == second:
        raise Ambiguous
    text = f"is there {_a(first)} and {_a(second)}?"
    return text, ["both exist", ["filter", first], ["filter", second]]


def _more(scene: Scene, rng: Random) -> Asked:
    first, second = _two_references(scene, rng)
    text = f"are there more {_noun(first)}s than {_noun(second)}s?".replace("crosss", "crosses")
    return text, ["more", ["filter", first], ["filter", second]]


@dataclass(frozen=True, slots=True)
class Template:
    """One way to ask: its weight in per mille, and whether yes and no are balanced."""

    question_type: str
    weight: int
    build: Callable[[Scene, Random], Asked]
    balanced: bool = False


_COLOUR = ("what colour is the {}?", "what is the colour of the {}?")
_SHAPE = ("what kind of shape is the {}?", "what is the {}?")
_SIZE = ("how big is the {}?", "is the {} small or large?")

TEMPLATES = (
    Template("colour", 190, _at_quarter("colour", *_COLOUR)),
    Template("colour", 40, _at_quarter_among("colour", *_COLOUR)),
    Template("colour", 20, _extreme("colour", *_COLOUR)),
    Template("colour", 25, _unique("colour", *_COLOUR)),
    Template("position", 90, _where),
    Template("shape", 50, _at_quarter("shape", *_SHAPE)),
    Template("shape", 10, _extreme("shape", *_SHAPE)),
    Template("shape", 20, _unique("shape", *_SHAPE)),
    Template("size", 45, _at_quarter("size", *_SIZE)),
    Template("size", 10, _unique("size", *_SIZE)),
    Template("count", 40, _count),
    Template("count", 45, _count_half),
    Template("existence", 60, _exists, balanced=True),
    Template("existence", 50, _exists_in_quarter, balanced=True),
    Template("existence", 50, _occupied, balanced=True),
    Template("relation", 75, _is_beside, balanced=True),
    Template("relation", 25, _colour_beside),
    Template("compound", 85, _describe_quarter),
    Template("compound", 105, _list_half),
    Template("compound", 15, _list_all),
    Template("compound", 15, _both_exist, balanced=True),
    Template("compound", 15, _more, balanced=True),
    Template("compound", 45, _more_in_half, balanced=True),
)
_WEIGHTS = [template.weight for template in TEMPLATES]
