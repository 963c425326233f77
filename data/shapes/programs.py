"""Programs: what a question asks, as nested lists that JSON can hold, and what answers them.

A program is [operation, argument, …]; an argument is a program or plain data.

    sets     ["filter", {attribute: value}]     attributes: shape, colour, size, quarter, half
             ["left of" | "right of" | "above" | "below", one]
    one      ["only", set]    ["leftmost" | "rightmost" | "topmost" | "lowest", set]
    answers  ["colour" | "shape" | "size" | "quarter", one]   ["describe", [attribute, …], one]
             ["list", [attribute, …], "x" | "y", set]   from left to right, or top to bottom
             ["count", set]  ["exists", set]  ["both exist", set, set]  ["more", set, set]
             ["is", "left of" | …, one, one]

Whatever a viewer could dispute raises Ambiguous: no such shape or several of them, or two shapes so
level that which is further left is a matter of pixels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from data.shapes.scene import CENTRE, Scene, Shape

Program = list[Any]
LEVEL = 10.0  # px; centres nearer than this along an axis count as level

# direction -> (axis, sign): the shape meant has the smaller sign * coordinate
DIRECTIONS = {"left of": ("x", 1), "right of": ("x", -1), "above": ("y", 1), "below": ("y", -1)}
EXTREMES = {
    "leftmost": ("x", 1),
    "rightmost": ("x", -1),
    "topmost": ("y", 1),
    "lowest": ("y", -1),
}


class Ambiguous(Exception):
    """The scene does not answer the program beyond dispute."""


def answer(program: Program, scene: Scene) -> tuple[str, tuple[int, ...]]:
    """The answer, and the places in `scene.shapes` of the shapes it rests on, in order."""
    operation, *arguments = program
    match operation:
        case "colour" | "shape" | "size" | "quarter":
            one = _one(arguments[0], scene)
            return str(getattr(scene.shapes[one], operation)), (one,)
        case "describe":
            one = _one(arguments[1], scene)
            return described(scene.shapes[one], arguments[0]), (one,)
        case "list":
            attributes, axis, shapes = arguments
            ordered = _ordered(_set(shapes, scene), axis, scene)
            return ", ".join(described(scene.shapes[i], attributes) for i in ordered), ordered
        case "count":
            found = _set(arguments[0], scene)
            return str(len(found)), found
        case "exists":
            found = _set(arguments[0], scene)
            return _yes(bool(found)), found
        case "both exist":
            first, second = (_set(argument, scene) for argument in arguments)
            return _yes(bool(first and second)), first + second
        case "more":
            first, second = (_set(argument, scene) for argument in arguments)
            return _yes(len(first) > len(second)), first + second
        case "is":
            direction, *pair = arguments
            one, other = (_one(argument, scene) for argument in pair)
            return _yes(_is(direction, one, other, scene)), (one, other)
    raise ValueError(f"unknown operation {operation!r} in program {program}")


def described(shape: Shape, attributes: list[str]) -> str:
    """For example "large red circle" for ["size", "colour", "shape"]."""
    return " ".join(str(getattr(shape, attribute)) for attribute in attributes)


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def _set(program: Program, scene: Scene) -> tuple[int, ...]:
    operation, argument = program
    if operation == "filter":
        return tuple(i for i, shape in enumerate(scene.shapes) if _has(shape, argument))
    reference = _one(argument, scene)
    others = (i for i in range(len(scene.shapes)) if i != reference)
    return tuple(i for i in others if _is(operation, i, reference, scene))


def _has(shape: Shape, wanted: dict[str, str]) -> bool:
    for attribute, value in wanted.items():
        if attribute == "half":
            side = shape.x if value in ("left", "right") else shape.y
            if (side < CENTRE) != (value in ("left", "top")):
                return False
        elif getattr(shape, attribute) != value:
            return False
    return True


def _one(program: Program, scene: Scene) -> int:
    operation, argument = program
    found = _set(argument, scene)
    if not found:
        raise Ambiguous
    if operation in EXTREMES:
        axis, sign = EXTREMES[operation]
        ordered = sorted(found, key=lambda i: sign * _at(scene, i, axis))
        if len(found) > 1 and _level(scene, ordered[0], ordered[1], axis):
            raise Ambiguous
        return ordered[0]
    if operation != "only":
        raise ValueError(f"unknown operation {operation!r} in program {program}")
    if len(found) > 1:
        raise Ambiguous
    return found[0]


def _is(direction: str, one: int, other: int, scene: Scene) -> bool:
    axis, sign = DIRECTIONS[direction]
    if one == other or _level(scene, one, other, axis):
        raise Ambiguous
    return sign * _at(scene, one, axis) < sign * _at(scene, other, axis)


def _ordered(found: tuple[int, ...], axis: str, scene: Scene) -> tuple[int, ...]:
    ordered = sorted(found, key=lambda i: _at(scene, i, axis))
    if not found or any(_level(scene, a, b, axis) for a, b in pairwise(ordered)):
        raise Ambiguous
    return tuple(ordered)


def _level(scene: Scene, one: int, other: int, axis: str) -> bool:
    return abs(_at(scene, one, axis) - _at(scene, other, axis)) < LEVEL


def _at(scene: Scene, i: int, axis: str) -> float:
    return scene.shapes[i].x if axis == "x" else scene.shapes[i].y
