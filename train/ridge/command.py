"""`python -m train.ridge`: heads without a learning rate for every table and pair of tables.

Ridge regression on one-hot answers (`train.engine.ridge`), logistic regression (`logistic.py`) or
the nearest neighbours' vote (`neighbours.py`); the one setting of each is chosen on the selection
part. An instant baseline, and a ranking of encoders.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch

from train.command_line import (
    TrainingCommand,
    cache_option,
    json_option,
    overrides_argument,
)
from train.engine.ridge import PATH, Inputs, RidgePath, check_stop, columns_of, moments, readers_of
from train.errors import TrainError
from train.ridge.layers import draw_layers, layers_of, print_layers
from train.ridge.logistic import STRENGTHS, LogisticPath, Solution
from train.ridge.neighbours import NEIGHBOURS, Neighbours, right_by_neighbours
from vqa_cache.spec import EncoderSpec

if TYPE_CHECKING:
    from rich.console import Console

    from train.inputs.load import TrainingData
    from train.inputs.parts import Part
    from vqa_cache.cache import Cache

SELECTION_CHUNK = 4096  # examples


@dataclass(frozen=True)
class Head:
    """A head and how good it is.

    Attributes:
        accuracy: on the selection part, with the best strength.
        strength: of ridge, lambda as a share of the mean eigenvalue; of logistic regression, 1 / C;
            of neighbours, how many vote.
        path: accuracy with every strength of the method.
    """

    image: str | None
    text: str | None
    width: int
    accuracy: float
    strength: float
    path: tuple[float, ...]


def fit_head(
    data: TrainingData,
    image: str | None,
    text: str | None,
    stopping: Callable[[], bool] = lambda: False,
) -> Head:
    """Solve the path on the training part and choose lambda on the selection part; of equals the
    strongest.

    Raises Stopped when `stopping`, asked between chunks, is true.
    """
    from train.engine.build import trainable

    train = data.parts["train"]
    examples = trainable(data)
    columns = columns_of(train, readers_of(data.tables), examples)
    sums = moments(columns, train.truth[examples], len(data.vocabulary), stopping=stopping)
    path = RidgePath(sums)
    solutions = [path.weights(strength) for strength in path.lambdas]
    accuracies = accuracies_of(solutions, data, stopping)
    best = max(range(len(PATH)), key=lambda place: (accuracies[place], place))
    return Head(image, text, _width(data), accuracies[best], PATH[best], accuracies)


def fit_logistic(
    data: TrainingData,
    image: str | None,
    text: str | None,
    stopping: Callable[[], bool] = lambda: False,
) -> Head:
    """The same by logistic regression."""
    from train.engine.build import trainable

    train = data.parts["train"]
    examples = trainable(data)
    columns = columns_of(train, readers_of(data.tables), examples)
    path = LogisticPath(columns, train.truth[examples], len(data.vocabulary), stopping=stopping)
    solutions = [path.solve(strength / len(examples)) for strength in STRENGTHS]
    accuracies = accuracies_of(solutions, data, stopping)
    best = max(range(len(STRENGTHS)), key=lambda place: (accuracies[place], -place))
    return Head(image, text, _width(data), accuracies[best], STRENGTHS[best], accuracies)


def fit_neighbours(
    data: TrainingData,
    image: str | None,
    text: str | None,
    stopping: Callable[[], bool] = lambda: False,
) -> Head:
    """The same by the vote of the nearest training examples; of equals the fewest."""
    from train.engine.build import trainable

    train, selection = data.parts["train"], data.parts[data.selection]
    examples, readers = trainable(data), readers_of(data.tables)
    neighbours = Neighbours(
        columns_of(train, readers, examples), train.truth[examples], len(data.vocabulary)
    )
    accuracies = right_by_neighbours(
        neighbours,
        lambda chunk: columns_of(selection, readers, chunk),
        selection.truth,
        _answered(selection),
        stopping,
    )
    best = max(range(len(NEIGHBOURS)), key=lambda place: (accuracies[place], -place))
    return Head(image, text, _width(data), accuracies[best], NEIGHBOURS[best], accuracies)


@dataclass(frozen=True)
class Method:
    """How heads are found.

    Attributes:
        strength: what `Head.strength` is; strengths: those that are tried.
    """

    fit: Callable[..., Head]
    strength: str
    strengths: tuple[float, ...]


METHODS = {
    "ridge": Method(fit_head, "lambda", PATH),
    "logistic": Method(fit_logistic, "1 / C", STRENGTHS),
    "neighbours": Method(fit_neighbours, "neighbours", NEIGHBOURS),
}


def _width(data: TrainingData) -> int:
    return sum(table.width for table in data.tables.values())


def accuracies_of(
    solutions: Sequence[Solution], data: TrainingData, stopping: Callable[[], bool]
) -> tuple[float, ...]:
    """Accuracy of every solution on the selection part."""
    selection = data.parts[data.selection]
    answered = _answered(selection)
    right = torch.zeros(len(solutions), dtype=torch.int64)
    for chunk in answered.split(SELECTION_CHUNK):
        check_stop(stopping)
        inputs = Inputs(columns_of(selection, readers_of(data.tables), chunk))
        truth = selection.truth[chunk]
        for place, (weights, bias) in enumerate(solutions):
            right[place] += (inputs.predictions(weights, bias) == truth).sum()
    return tuple((right.double() / len(answered)).tolist())


def _answered(part: Part) -> torch.Tensor:
    """The examples that count, int64 [n], by image: a chunk has few distinct ones."""
    answered = torch.from_numpy(part.answered).nonzero()[:, 0]
    return answered[torch.from_numpy(part.joined.image)[answered].argsort(stable=True)]


def candidates(cache: Cache) -> list[tuple[str | None, str | None]]:
    """Every table alone and every pair of an image and a text table, by name."""
    found = list(cache.tables.values())
    images: list[str | None] = [table.name for table in found if table.modality == "image"]
    texts: list[str | None] = [table.name for table in found if table.modality == "text"]
    alone = [*((name, None) for name in images), *((None, name) for name in texts)]
    return [*alone, *((image, text) for image in images for text in texts)]


def _encoder_options(cache: Cache, pairs: Sequence[tuple[str | None, str | None]]) -> list[str]:
    """Options of stage 1 for the encoders of tables that are named, or for specs."""
    options = []
    for option, names in zip(("--image", "--text"), zip(*pairs, strict=True), strict=True):
        for name in dict.fromkeys(filter(None, names)):
            known = cache.tables[name].specs() if name in cache.tables else []
            options += [option, str(EncoderSpec(**known[0].as_json())) if known else name]
    return options


def rank(
    cache: Cache,
    overrides: Sequence[str],
    console: Console,
    stopping: Callable[[], bool] = lambda: False,
    pairs: Sequence[tuple[str | None, str | None]] | None = None,
    *,
    fit: Callable[..., Head] = fit_head,
) -> tuple[list[Head], dict[str, str]]:
    """Heads for candidates, the best first, and why some have none.

    Args:
        pairs: (image, text) tables; None: all `candidates`.
        fit: that of a method.

    Raises:
        TrainError: an override is wrong, or no candidate has a head.
        Stopped: `stopping` became true.
    """
    from train.config.check import check
    from train.config.schema import Experiment
    from train.engine.data import load_data
    from train.loop.progress import say
    from vqa_cache.experiments import apply_override
    from vqa_cache.system.device import CPU

    heads: list[Head] = []
    reasons: dict[str, str] = {}
    pairs = candidates(cache) if pairs is None else pairs
    encoders = _encoder_options(cache, pairs)
    for image, text in pairs:
        # a head and an optimiser are asked for, and take no part
        values: dict[str, Any] = {
            "features": {"normalise": "zscore"},
            "head": {"name": "linear"},
            "optimizer": {"name": "adamw", "lr": 1.0},
        }
        errors = [line for override in overrides for line in apply_override(values, override)]
        features = values["features"]
        features |= {name: spec for name, spec in (("image", image), ("text", text)) if spec}
        config = check(values, errors)
        dataset = ["--dataset", config.features.dataset]
        command = shlex.join(["python", "-m", "precompute", *dataset, *encoders])
        experiment = Experiment("ridge", config, command)
        name = " + ".join(filter(None, (image, text)))
        try:
            data = load_data(experiment, cache, precision="fp32", device=CPU)
            head = fit(data, image, text, stopping)
        except TrainError as error:
            reasons[name] = str(error)
            say(console, f"{name}: left out: {error}")
            continue
        say(console, f"{name}: accuracy {head.accuracy:.4f}")
        heads.append(head)
    if not heads:
        listed = "; ".join(dict.fromkeys(reasons.values())) or f"{cache.path} has no tables"
        raise TrainError(f"no table can be trained on: {listed}")
    return sorted(heads, key=lambda head: -head.accuracy), reasons


@click.command(cls=TrainingCommand, stopped="nothing is written")
@overrides_argument
@cache_option
@click.option(
    "--layers",
    multiple=True,
    metavar="ENC:tap=a+b+c",
    help="Which layer: only these taps of one encoder, in this order. May repeat.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --layers: also draw accuracy by tap, as PNG.",
)
@click.option(
    "--widths",
    metavar="N,N,...",
    default="",
    callback=lambda _, __, text: _widths(text),
    help="Also with each table's rows cut to so many principal directions.",
)
@click.option("--method", type=click.Choice(list(METHODS)), default="ridge", show_default=True)
@json_option
def command(
    overrides: tuple[str, ...],
    cache: Path,
    layers: tuple[str, ...],
    picture: Path | None,
    widths: list[int],
    method: str,
    as_json: bool,
) -> None:
    """Rank the tables of a cache by heads without a learning rate on each, and on each image-text
    pair.

    KEY=VALUE sets what is read, for example features.dataset=shapes or answers.k=100.
    """
    from rich.console import Console

    import vqa_cache
    from vqa_cache.system.signals import StopSignal

    if picture is not None and not layers:
        raise click.UsageError("--picture draws accuracy by tap: name the taps with --layers")
    if widths and layers:
        raise click.UsageError("--layers and --widths make a table each: leave one out")
    console = Console(stderr=as_json)
    check_overrides(overrides)
    opened = vqa_cache.open(cache)
    chosen = layers_of(opened, layers) if layers else None
    pairs = chosen.candidates() if chosen else None
    fit, stopping = METHODS[method].fit, StopSignal()
    heads, reasons = rank(opened, overrides, console, stopping, pairs, fit=fit)
    for width in widths:
        narrow = [*overrides, "features.normalise=pca", f"features.width={width}"]
        found_heads, found_reasons = rank(opened, narrow, console, stopping, fit=fit)
        heads = sorted([*heads, *found_heads], key=lambda head: -head.accuracy)
        reasons |= {f"{name}, width {width}": why for name, why in found_reasons.items()}
    if chosen and picture is not None:
        draw_layers(chosen, heads, picture)
    if as_json:
        found = {
            "heads": [asdict(head) for head in heads],
            "strengths": METHODS[method].strengths,
            "reasons": reasons,
        }
        click.echo(json.dumps(found | ({"taps": chosen.taps} if chosen else {})))
    elif chosen:
        print_layers(chosen, heads, console)
    else:
        print_heads(heads, console, method)


def _widths(text: str) -> list[int]:
    """The numbers of --widths."""
    pieces = text.split(",") if text else []
    if not all(piece.isascii() and piece.isdigit() and int(piece) for piece in pieces):
        raise click.BadParameter(f"{text!r}: expected widths of at least 1, as in 64,128,256")
    return [int(piece) for piece in pieces]


def check_overrides(overrides: Sequence[str]) -> None:
    """Only what is read can be set, and not which tables. Raises TrainError."""
    for override in overrides:
        key = override.partition("=")[0]
        free = key.startswith("answers.") or key in (
            "features.dataset",
            "features.normalise",
            "data_seed",
            "load",
        )
        if not free:
            raise TrainError(
                f"{override}: ridge takes features.dataset, features.normalise, answers.*, "
                "data_seed and load; all tables are tried"
            )


def print_heads(heads: Sequence[Head], console: Console, method: str) -> None:
    """The ranking as a table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=f"heads by {method}", title_justify="left", box=SIMPLE_HEAD)
    for column in ("image", "text"):
        table.add_column(column, overflow="fold")
    for column in ("width", METHODS[method].strength, "accuracy"):
        table.add_column(column, justify="right", no_wrap=True)
    for head in heads:
        found = (f"{head.width:,}", f"{head.strength:.3g}", f"{head.accuracy:.4f}")
        table.add_row(head.image or "-", head.text or "-", *found)
    console.print(table)
