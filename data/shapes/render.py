"""Pictures of scenes: RGB, 128 x 128 px, drawn four times as large and averaged down."""

from __future__ import annotations

import io
import math

from data.shapes.scene import COLOURS, SIDE, Scene, Shape

_OVERSAMPLING = 4


def outline(shape: Shape) -> list[tuple[float, float]]:
    """Corners of the shape's polygon in pixels; a circle is a polygon of 48 corners.

    The shapes of one radius have about the same area.
    """
    match shape.shape:
        case "circle":
            unit = _round(48, 1.0)
        case "square":
            unit = [(-0.87, -0.87), (0.87, -0.87), (0.87, 0.87), (-0.87, 0.87)]
        case "triangle":
            unit = [(0.0, -1.15), (1.15, 0.85), (-1.15, 0.85)]
        case "star":
            unit = [
                (scale * x, scale * y)
                for (x, y), scale in zip(_round(10, 1.0), (1.3, 0.58) * 5, strict=True)
            ]
        case "cross":
            a, b = 0.42, 1.15
            unit = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
            unit += [(-x, -y) for x, y in unit]
        case "diamond":
            unit = [(0.0, -1.3), (0.95, 0.0), (0.0, 1.3), (-0.95, 0.0)]
        case other:
            raise ValueError(f"no outline for shape {other!r}")
    return [(shape.x + shape.radius * x, shape.y + shape.radius * y) for x, y in unit]


def _round(corners: int, radius: float) -> list[tuple[float, float]]:
    angles = [2 * math.pi * corner / corners for corner in range(corners)]
    return [(radius * math.sin(angle), -radius * math.cos(angle)) for angle in angles]


def png(scene: Scene) -> bytes:
    """The scene's picture as the bytes of a PNG file."""
    from PIL import Image, ImageDraw

    side = SIDE * _OVERSAMPLING
    image = Image.new("RGB", (side, side), (scene.background,) * 3)
    draw = ImageDraw.Draw(image)
    for shape in scene.shapes:
        corners = [(x * _OVERSAMPLING, y * _OVERSAMPLING) for x, y in outline(shape)]
        draw.polygon(corners, fill=COLOURS[shape.colour])
    buffer = io.BytesIO()
    image.reduce(_OVERSAMPLING).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()
