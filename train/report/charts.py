"""Pictures of the page: matplotlib draws them as SVG, which stands in the page itself.

Colours are placeholders until they are written: the page's own take their place, so that one
picture is right in light and dark. Texts are texts, not outlines, and are never read as formulas.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from train.metrics.calibration import Floats, reliability, risk_coverage
from train.report.judged import Flags
from train.report.sweeps import ReportedSweep
from train.runs.curves import Curve
from train.sweep.space import Choice, Range
from vqa_cache.experiments import parse_value

INK = "#010203"
SERIES = [f"#0a0b{number:02x}" for number in range(1, 9)]
# what the series are coloured in where there is no page around the picture, in a notebook
ELSEWHERE = (
    "#3b82c4", "#e0703a", "#3a9d5b", "#a45bb8", "#b08e14", "#2a9d8f", "#d0417c", "#8a8d93",
)  # fmt: skip
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 9.0,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "axes.grid": True,
    "grid.alpha": 0.2,
    "grid.color": INK,
    "axes.axisbelow": True,
}
MOST_POINTS = 200  # of a curve
_MOST_LABELS = 12  # of a key's values


def curves(
    name: str,
    by_run: Mapping[str, Mapping[str, Curve]],
    titles: Sequence[tuple[str, Sequence[str]]],
    levels: Mapping[str, float],
) -> str:
    """Curves by epoch, a panel for each title; a colour for each run, a dash for each curve.

    Args:
        titles: a panel's title with the names of its curves.
        levels: of the last panel, what there is to beat: a label with a height.
    """
    with matplotlib.rc_context(_STYLE):
        figure, panels = _panels(len(titles))
        for axes, (title, names) in zip(panels, titles, strict=True):
            for colour, (run, curves_of_run) in zip(
                _colours(len(by_run)), by_run.items(), strict=True
            ):
                for dash, curve in zip(("-", "--", ":"), names, strict=False):
                    points = curves_of_run.get(curve)
                    if points:
                        epochs, values = zip(*points, strict=True)
                        label = curve if len(by_run) == 1 else f"{run}: {curve}"
                        axes.plot(epochs, values, dash, color=colour, label=label,
                                  marker="." if len(points) < 30 else None)  # fmt: skip
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for label, height in levels.items():
            panels[-1].axhline(height, linestyle=":", color=INK, linewidth=1, label=label)
        for axes in panels:
            if axes.lines:
                axes.legend(fontsize="small")
        return _svg(figure, name)


def confidence(name: str, by_run: Mapping[str, tuple[Floats, Flags]]) -> str:
    """Accuracy by confidence beside accuracy by coverage; a colour for each run.

    Args:
        by_run: the probability of each answer that a run gave, and whether it is right.
    """
    with matplotlib.rc_context(_STYLE):
        figure, (left, right) = _panels(2)
        left.plot([0, 1], [0, 1], ":", color=INK, linewidth=1)
        for colour, (run, (sure, correct)) in zip(
            _colours(len(by_run)), by_run.items(), strict=True
        ):
            said, accuracy, n = reliability(sure, correct)
            left.plot(said, accuracy, color=colour, label=run)
            left.scatter(said, accuracy, s=4 + 60 * n / n.max(), color=colour)
            coverage, error = risk_coverage(sure, correct)
            chosen = np.unique(np.linspace(0, len(coverage) - 1, MOST_POINTS).astype(int))
            right.plot(coverage[chosen], 1 - error[chosen], color=colour, label=run)
        left.set(title="calibration", xlabel="confidence", ylabel="accuracy", xlim=(0, 1),
                 ylim=(0, 1.02))  # fmt: skip
        right.set(title="risk and coverage", xlabel="share of questions answered, the surest first",
                  ylabel="accuracy on them", xlim=(0, 1.01))  # fmt: skip
        if len(by_run) > 1:
            right.legend(fontsize="small")
        return _svg(figure, name)


def parallel(sweep: ReportedSweep, name: str) -> str:
    """Parallel coordinates: an axis for each key and one for the accuracy; a line for each trial,
    whose id is `<name>-trial-<number>`."""
    with matplotlib.rc_context(_STYLE | {"axes.grid": False}):
        dimensions = sweep.space.dimensions
        width = max(6.0, 1.6 * (len(dimensions) + 1))
        figure = Figure((width, 4.0))
        axes: Axes = figure.add_axes((0.08, 0.05, 0.84, 0.83))
        axes.set_axis_off()
        axes.set_ylim(-0.02, 1.02)
        values = [t["value"] for t in sweep.trials if t["value"] is not None]
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        span = (high - low) or 1.0
        for trial in reversed(sweep.trials):
            if trial["value"] is None:
                continue
            end = (trial["value"] - low) / span
            places = [_place(d, trial["params"][d.key]) for d in dimensions]
            (line,) = axes.plot(
                range(len(dimensions) + 1), [*places, end], linewidth=1.2,
                color=matplotlib.colormaps["viridis"](0.1 + 0.8 * end),
                linestyle="-" if trial["status"] == "finished" else ":",
            )  # fmt: skip
            line.set_gid(f"trial-{trial['trial']}")
        for place, dimension in enumerate(dimensions):
            _axis(axes, place, dimension.key, _labels(dimension))
        marks = [(share, f"{low + share * span:.3f}") for share in (0.0, 0.5, 1.0)]
        _axis(axes, len(dimensions), "accuracy", marks)
        return _svg(figure, name)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure((4.4 * count, 3.1))
    panels = figure.subplots(1, count)
    figure.subplots_adjust(left=0.06, right=0.99, top=0.91, bottom=0.16, wspace=0.18)
    return figure, list(np.atleast_1d(panels))


def _colours(count: int) -> list[str]:
    return [SERIES[number % len(SERIES)] for number in range(count)]


def _axis(axes: Axes, place: int, title: str, labels: Sequence[tuple[float, str]]) -> None:
    axes.plot([place, place], [0, 1], color=INK, linewidth=0.8, alpha=0.6)
    axes.text(place, 1.06, title, ha="center", va="bottom")
    for height, text in labels:
        axes.text(place + 0.02, height, text, va="center", fontsize="small")


def _place(dimension: Choice | Range, value: object) -> float:
    """Where a value is on its axis, 0 to 1."""
    if isinstance(dimension, Choice):
        known = [parse_value(text) for text in dimension.values]
        return known.index(value) / max(1, len(known) - 1)
    number, low, high = float(str(value)), dimension.low, dimension.high
    if dimension.log:
        return float(np.log(number / low) / np.log(high / low))
    return (number - low) / (high - low)


def _labels(dimension: Choice | Range) -> list[tuple[float, str]]:
    if isinstance(dimension, Choice):
        count = len(dimension.values)
        shown = dimension.values if count <= _MOST_LABELS else ()
        return [(n / max(1, count - 1), text) for n, text in enumerate(shown)]
    middle = (
        (dimension.low * dimension.high) ** 0.5
        if dimension.log
        else (dimension.low + dimension.high) / 2
    )
    return [(0.0, f"{dimension.low:g}"), (0.5, f"{middle:.3g}"), (1.0, f"{dimension.high:g}")]


def _svg(figure: Figure, name: str) -> str:
    """The picture as an element: page colours, and ids that no other picture has."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    for number, (colour, elsewhere) in enumerate(zip(SERIES, ELSEWHERE, strict=True), start=1):
        text = text.replace(colour, f"var(--series-{number}, {elsewhere})")
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(
        r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg role="img" viewBox="\1">', text, count=1
    )
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
