"""`python -m train.ridge --layers`: accuracy by tap of one encoder, as a table and a picture.

Each tap's head is solved alone and beside every table of the other modality; what those reach
without the encoder stands beside, so that a tap is not praised for what the question says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from train.errors import TrainError
from vqa_cache.errors import TableNotFoundError
from vqa_cache.spec import EncoderSpec, Modality, each_tap, parse_spec

if TYPE_CHECKING:
    from rich.console import Console

    from train.ridge.command import Head
    from vqa_cache.cache import Cache

ALONE = "the tap alone"


@dataclass(frozen=True)
class Layers:
    """The tables of an encoder's taps.

    Attributes:
        taps: table -> what it is called here, in the order in which the taps were named.
        others: the tables of the other modality.
    """

    modality: Modality
    taps: dict[str, str]
    others: list[str]

    def candidates(self) -> list[tuple[str | None, str | None]]:
        """(image, text) of every head: each tap alone, each other table alone, and all pairs."""
        pairs: list[tuple[str | None, str | None]] = []
        for tap in (None, *self.taps):
            pairs += [(tap, other) for other in (None, *self.others) if tap or other]
        return pairs if self.modality == "image" else [(text, image) for image, text in pairs]

    def split(self, head: Head) -> tuple[str | None, str | None]:
        """The tap's table and the other one that a head reads."""
        return (head.image, head.text) if self.modality == "image" else (head.text, head.image)

    def accuracies(self, heads: Sequence[Head]) -> dict[str, list[float | None]]:
        """`ALONE` or the table beside -> accuracy of each tap, None where there is no head."""
        found = {self.split(head): head.accuracy for head in heads}
        return {
            other or ALONE: [found.get((tap, other)) for tap in self.taps]
            for other in (None, *self.others)
        }


def layers_of(cache: Cache, named: Sequence[str]) -> Layers:
    """The taps of an encoder by specs, `tap=a+b` or several.

    Raises:
        TrainError: they are of several encoders, or a single tap, or not in the cache.
    """
    texts = [spec for text in named for spec in each_tap(text)]
    specs = [parse_spec(text) for text in dict.fromkeys(texts)]
    encoders = sorted({str(spec.without_tap()) for spec in specs})
    if len(encoders) > 1 or len(specs) < 2:
        found = "one tap" if len(encoders) == 1 else f"taps of {', '.join(encoders)}"
        raise TrainError(
            f"--layers: expected several taps of one encoder (ENC:tap=a+b+c), found {found}"
        )
    reasons = []
    for modality in ("image", "text"):
        try:
            tables = [cache.find_table(str(spec), modality) for spec in specs]
        except TableNotFoundError as error:
            reasons.append(str(error))
            continue
        others = [one.name for one in cache.tables.values() if one.modality != modality]
        pairs = zip(tables, specs, strict=True)
        return Layers(modality, {one.name: _label(spec, modality) for one, spec in pairs}, others)
    raise TrainError(f"--layers: {'; '.join(reasons)}; encode the taps first: docs/encoders.md")


def _label(spec: EncoderSpec, modality: Modality) -> str:
    grid = spec.options.get("grid")
    tap = spec.with_default_tap(modality).tap
    return f"{tap}:grid={grid}" if grid else str(tap)


def print_layers(layers: Layers, heads: Sequence[Head], console: Console) -> None:
    """Accuracy by tap as a table, a column for each table beside."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    widths = {layers.split(head)[0]: head.width for head in heads if not layers.split(head)[1]}
    without = {layers.split(head)[1]: head.accuracy for head in heads if not layers.split(head)[0]}
    columns = layers.accuracies(heads)
    table = Table(title="accuracy by tap", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("tap", overflow="fold")
    table.add_column("width", justify="right", no_wrap=True)
    for beside in columns:
        table.add_column(beside if beside == ALONE else f"+ {beside}", justify="right")
    for number, (name, tap) in enumerate(layers.taps.items()):
        width = f"{widths[name]:,}" if name in widths else "-"
        table.add_row(tap, width, *(_shown(found[number]) for found in columns.values()))
    table.add_row("none", "-", *(_shown(without.get(beside)) for beside in columns))
    console.print(table)


def _shown(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{accuracy:.4f}"


def draw_layers(layers: Layers, heads: Sequence[Head], path: Path) -> None:
    """Accuracy by tap as a picture: a line alone and one beside each other table, dashed what that
    table reaches without the encoder. Raises TrainError where it cannot be written."""
    from matplotlib.figure import Figure  # not pyplot: no display, nothing global

    places = range(len(layers.taps))
    figure = Figure(figsize=(max(4.8, 1.1 * len(layers.taps)), 4), layout="constrained")
    axes = figure.add_subplot()
    without = {layers.split(head)[1]: head.accuracy for head in heads if not layers.split(head)[0]}
    for beside, found in layers.accuracies(heads).items():
        heights = [float("nan") if one is None else one for one in found]
        label = beside if beside == ALONE else f"+ {beside}"
        [line] = axes.plot(places, heights, marker="o", label=label)
        if beside in without:
            axes.axhline(
                without[beside], linestyle="--", color=line.get_color(), label=f"{beside} alone"
            )
    axes.set_xticks(places, list(layers.taps.values()), rotation=30, ha="right")
    axes.set(xlabel="tap", ylabel="accuracy on the selection part")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", fontsize="small")  # hides no point
    try:
        figure.savefig(path, dpi=150, format="png")
    except OSError as error:
        raise TrainError(f"--picture {path}: {error.strerror}") from error
