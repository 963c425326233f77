"""A scene: 3 to 8 overlapping coloured shapes on a plain background, in pixels of a 128 px square.

Centres keep clear of both middle lines, so every shape lies in one quarter without doubt. Small
shapes lie over large ones and centres keep apart, so every shape stays visible for the most part.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

SIDE = 128
CENTRE = SIDE / 2
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
SHAPE_WEIGHTS = (22, 20, 18, 15, 13, 12)
COLOURS = {
    "red": (225, 25, 30),
    "blue": (25, 60, 225),
    "green": (20, 160, 45),
    "yellow": (250, 220, 20),
    "purple": (145, 30, 180),
    "orange": (250, 130, 10),
    "turquoise": (30, 205, 215),
    "black": (15, 15, 15),
}
COLOUR_WEIGHTS = (18, 16, 14, 13, 11, 10, 9, 9)
RADII = {"small": (11.0, 12.5), "large": (18.5, 21.0)}
NUMBERS_OF_SHAPES = (3, 4, 5, 6, 7, 8)
NUMBER_WEIGHTS = (24, 24, 20, 14, 10, 8)
QUARTERS = ("top left", "top right", "bottom left", "bottom right")
HALVES = ("left", "right", "top", "bottom")

_REACH = 1.3  # no outline reaches further from its centre than this many radii
_CLEAR_OF_MIDDLE = 6.0
_CLOSEST = 0.62  # centres keep this share of the sum of two radii apart
_APART = 1.15  # … and this share where their colours are the same
_OVERLAPPING = 0.78  # the second shape comes at least this near to the first


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape: its centre and radius in pixels, y downwards."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float

    @property
    def quarter(self) -> str:
        return f"{'top' if self.y < CENTRE else 'bottom'} {'left' if self.x < CENTRE else 'right'}"


@dataclass(frozen=True, slots=True)
class Scene:
    """Shapes in the order in which they are drawn, over a grey background of value 0 to 255."""

    image_id: int
    background: int
    shapes: tuple[Shape, ...]


def make_scene(image_id: int, rng: Random) -> Scene:
    """A scene drawn by `rng`; the same state of `rng` gives the same scene."""
    number = rng.choices(NUMBERS_OF_SHAPES, NUMBER_WEIGHTS)[0]
    shapes = None
    while shapes is None:
        shapes = _layout(number, rng)
    # a large shape drawn later would hide a small one
    shapes.sort(key=lambda shape: -shape.radius)
    return Scene(image_id, rng.randrange(205, 246), tuple(shapes))


def _layout(number: int, rng: Random) -> list[Shape] | None:
    """Shapes placed one after the other, or None where one found no room."""
    shapes: list[Shape] = []
    quarters = rng.sample(QUARTERS, k=4)[: rng.randrange(2, 5)]
    for place in range(number):
        size = "large" if rng.random() < (0.6 if number < 6 else 0.35) else "small"
        radius = round(rng.uniform(*RADII[size]), 1)
        for _ in range(60):
            shape = Shape(
                shape=rng.choices(SHAPES, SHAPE_WEIGHTS)[0],
                colour=rng.choices(tuple(COLOURS), COLOUR_WEIGHTS)[0],
                size=size,
                x=round(rng.uniform(_REACH * radius, SIDE - _REACH * radius), 1),
                y=round(rng.uniform(_REACH * radius, SIDE - _REACH * radius), 1),
                radius=radius,
            )
            near = _OVERLAPPING if place == 1 else None
            spread = place < len(quarters) and place != 1
            wanted = quarters[place] if spread else None
            if _fits(shape, shapes, near) and wanted in (None, shape.quarter):
                shapes.append(shape)
                break
        else:
            return None
    return shapes


def _fits(shape: Shape, others: list[Shape], near: float | None) -> bool:
    if min(abs(shape.x - CENTRE), abs(shape.y - CENTRE)) < _CLEAR_OF_MIDDLE:
        return False
    for other in others:
        distance = ((shape.x - other.x) ** 2 + (shape.y - other.y) ** 2) ** 0.5
        reach = shape.radius + other.radius
        # two of one colour that overlap would look like one shape
        if distance < reach * (_APART if shape.colour == other.colour else _CLOSEST):
            return False
        if near is not None and distance > reach * near:
            return False
    return True
