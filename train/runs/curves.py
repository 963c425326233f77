"""A run's curves by epoch: read from its log, as a line on a screen, and as a plain picture.

Pillow draws the picture: importing matplotlib takes a second of processor time, which
every training would wait for.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from train.evaluation.result import PRINTED, below_question_only, headline_split, with_error
from train.loop.layout import CURVE
from train.runs.tabular import sparkline, text_of
from vqa_cache.system.durable import write_file

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

Curve = Sequence[tuple[float, float]]  # epochs with values
_PLACE = {"step", "epoch", "part"}  # of a row of the log
_BLOCKS = 40  # of a line on a screen
_SCALE = 2  # drawn larger and made smaller, so that lines are smooth
_PANEL, _HEIGHT, _LEFT, _TOP, _BOTTOM = 460, 320, 56, 62, 34  # pixels
_INK, _GREY, _LIGHT = "#333333", "#8a8d93", "#e4e4e4"
_COLOURS = ("#3b82c4", "#e0703a", "#3a9d5b", "#a45bb8")


def read_curves(log: Path) -> dict[str, Curve]:
    """Curves by name, of a finished run's log."""
    steps: dict[int, list[float]] = defaultdict(list)
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with log.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if "part" not in row:
                if row["train_loss"] is not None:
                    steps[row["epoch"]].append(row["train_loss"])
                continue
            for name in sorted(row.keys() - _PLACE):
                if row[name] is not None:
                    curves[f"{row['part']} {name}"].append((row["epoch"], row[name]))
    losses = [(float(epoch), fmean(values)) for epoch, values in sorted(steps.items())]
    return {"train loss": losses, **curves}


def panels_of(runs: Iterable[Mapping[str, Curve]]) -> list[tuple[str, list[str]]]:
    """The panels that curves are drawn in: losses, and the rest."""
    names = list(dict.fromkeys(name for curves in runs for name in curves))
    losses = [name for name in names if name.endswith((" loss", " cross_entropy"))]
    return [("loss", losses), ("accuracy", [name for name in names if name not in losses])]


def told(curves: Mapping[str, Curve], split: str) -> list[str]:
    """A line with a split's accuracy by epoch; none where it was evaluated once."""
    curve = curves.get(f"{split} accuracy", ())
    if len(curve) < 2:
        return []
    values = [value for _, value in curve]
    low, high = min(values), max(values)
    line = sparkline(values, low, high, _BLOCKS)
    first = next(epoch for epoch, value in curve if value == high)
    return [
        f"{split} accuracy by epoch: {line}  {text_of(values[0])} to {text_of(values[-1])}, best "
        f"{text_of(high)} after epoch {text_of(first)}"
    ]


def keep_picture(run: Path, result: Mapping[str, Any], curves: Mapping[str, Curve]) -> None:
    """Draw a finished run's curves into its folder, unless they are there. Raises OSError."""
    if (run / CURVE).exists():
        return
    split = headline_split(result)
    accuracy = with_error(result["metrics"][split]["accuracy"], None)
    below = ", below question only" if below_question_only(result) else ""
    title = f"{run.name} on {result['dataset']}: {split} accuracy {accuracy}{below}"
    selection = result["best"]["split"]
    levels = {
        name.replace("_", " "): found[selection]["accuracy"]
        for name in PRINTED
        if (found := result["baselines"].get(name)) and found.get(selection)
    }
    levels = {name: height for name, height in levels.items() if height is not None}
    write_file(run / CURVE, picture(title, curves, levels))


def picture(title: str, curves: Mapping[str, Curve], levels: Mapping[str, float]) -> bytes:
    """A PNG of the losses and, beside them, of accuracy.

    Args:
        levels: what accuracy has to beat: a label with a height, drawn dotted.
    """
    from PIL import Image, ImageDraw

    panels = panels_of([curves])
    size = (len(panels) * _PANEL, _HEIGHT)
    large = Image.new("RGB", (size[0] * _SCALE, size[1] * _SCALE), "white")
    draw = ImageDraw.Draw(large)
    _text(draw, (12, 8), title, _INK, 14)
    for number, (name, names) in enumerate(panels):
        shown = {one: curves[one] for one in names if curves[one]}
        _panel(draw, number * _PANEL, name, shown, levels if name == "accuracy" else {})
    content = io.BytesIO()
    large.resize(size, Image.Resampling.LANCZOS).save(content, "PNG")
    return content.getvalue()


def _panel(
    draw: ImageDraw,
    left: int,
    name: str,
    curves: Mapping[str, Curve],
    levels: Mapping[str, float],
) -> None:
    """One panel: axes with their ends, curves, and their names in their colours."""
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return
    heights = [value for _, value in points] + list(levels.values())
    low, high = min(heights), max(heights)
    last = max(epoch for epoch, _ in points)
    begin, end = left + _LEFT, left + _PANEL - 16
    top, bottom = _TOP, _HEIGHT - _BOTTOM

    def place(epoch: float, value: float) -> tuple[float, float]:
        x = begin + (end - begin) * epoch / (last or 1)
        return x, bottom - (bottom - top) * (value - low) / ((high - low) or 1)

    for share in (0, 0.5, 1):
        value = low + share * (high - low)
        y = place(0, value)[1]
        _line(draw, [(begin, y), (end, y)], _LIGHT, 1)
        _text(draw, (begin - 6, y), text_of(value), _INK, 11, "rm")
    for epoch in sorted({0, round(last / 2), last}):
        _text(draw, (place(epoch, low)[0], bottom + 6), text_of(epoch), _INK, 11, "mt")
    _text(draw, (end, bottom + 20), "epoch", _GREY, 11, "rt")
    x = left + 12.0
    for number, (label, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        _line(draw, [place(*point) for point in curve], colour, 2)
        for x_of, y_of in (place(*point) for point in (curve if len(curve) < 30 else ())):
            _line(draw, [(x_of - 2, y_of), (x_of + 2, y_of)], colour, 4)
        x = _text(draw, (x, 34), label, colour, 12) + 14
    free: float = bottom + 12  # lowest place of the next label
    for label, height in sorted(levels.items(), key=lambda item: item[1]):
        y = place(0, height)[1]
        for dash in range(begin, end, 8):
            _line(draw, [(dash, y), (dash + 4, y)], _GREY, 1)
        free = min(y - 2, free - 12)
        _text(draw, (end, free), label, _GREY, 11, "rb")


def _line(draw: ImageDraw, points: Curve, colour: str, width: int) -> None:
    scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
    for one, other in pairwise(scaled):
        draw.line([one, other], fill=colour, width=width * _SCALE)


def _text(
    draw: ImageDraw,
    at: tuple[float, float],
    text: str,
    colour: str,
    size: int,
    anchor: str = "la",
) -> float:
    """Write a text; where it ends."""
    from PIL import ImageFont

    font: Any = ImageFont.load_default(size * _SCALE)
    scaled = (at[0] * _SCALE, at[1] * _SCALE)
    draw.text(scaled, text, fill=colour, font=font, anchor=anchor)
    return at[0] + float(draw.textlength(text, font=font)) / _SCALE
