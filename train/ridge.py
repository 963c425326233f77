"""`python -m train.ridge`: closed-form heads for every table and pair of tables in a cache.

Ridge regression on one-hot answers (Hoerl and Kennard 1970): W = (X'X + lambda I)^-1 X'Y with X and
Y centred, so that the bias is not shrunk. One eigendecomposition of X'X = Q E Q' gives the whole
path: W(lambda) = Q (E + lambda I)^-1 Q'X'Y. lambda is chosen on the selection part. No learning
rate, no epochs: an instant baseline, and a ranking of encoders.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch

from train.command_line import run_command
from train.errors import TrainError

if TYPE_CHECKING:
    from rich.console import Console

    from train.training_data import TrainingData
    from vqa_cache.cache import Cache

PATH = tuple(10.0 ** (exponent / 2) for exponent in range(-12, 5))  # of the mean eigenvalue
CHUNK = 4096  # rows


@dataclass(frozen=True)
class Moments:
    """Sums over n examples of X [n, width] and one-hot Y [n, classes], float64.

    Attributes:
        mean_x, mean_y: [width], [classes].
        gram: X'X of the centred X, [width, width].
        cross: X'Y, both centred, [width, classes].
    """

    n: int
    mean_x: torch.Tensor
    mean_y: torch.Tensor
    gram: torch.Tensor
    cross: torch.Tensor


def moments(
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]], *, width: int, classes: int
) -> Moments:
    """Accumulate the sums of batches (x [batch, width], class int64 [batch]), one at least."""
    n = 0
    sum_x = torch.zeros(width, dtype=torch.float64)
    sum_y = torch.zeros(classes, dtype=torch.float64)
    gram = torch.zeros((width, width), dtype=torch.float64)
    cross = torch.zeros((classes, width), dtype=torch.float64)
    for x, truth in batches:
        exact = x.double()
        n += len(exact)
        sum_x += exact.sum(dim=0)
        sum_y += torch.bincount(truth, minlength=classes)
        gram.addmm_(exact.T, exact)
        cross.index_add_(0, truth, exact)
    mean_x, mean_y = sum_x / n, sum_y / n
    gram -= n * torch.outer(mean_x, mean_x)
    return Moments(n, mean_x, mean_y, gram, cross.T - n * torch.outer(mean_x, mean_y))


class RidgePath:
    """The solutions of every lambda, from one eigendecomposition.

    Attributes:
        lambdas: `PATH` times the mean eigenvalue of X'X.
    """

    def __init__(self, sums: Moments) -> None:
        self._sums = sums
        values, self._basis = torch.linalg.eigh(sums.gram)
        self._values = values.clamp_min(0)
        self._projected = self._basis.T @ sums.cross
        scale = float(self._values.mean()) or 1.0
        self.lambdas = [share * scale for share in PATH]

    def weights(self, strength: float) -> tuple[torch.Tensor, torch.Tensor]:
        """W [width, classes] and bias [classes] of one lambda."""
        shrunk = self._projected / (self._values + strength)[:, None]
        weights = self._basis @ shrunk
        return weights, self._sums.mean_y - self._sums.mean_x @ weights

    def predictions(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Classes of x [batch, width], int64 [batch], for each lambda in turn."""
        turned = (x.double() - self._sums.mean_x) @ self._basis
        for strength in self.lambdas:
            shrunk = self._projected / (self._values + strength)[:, None]
            yield (turned @ shrunk + self._sums.mean_y).argmax(dim=1)


@dataclass(frozen=True)
class Head:
    """A closed-form head and how good it is.

    Attributes:
        accuracy: on the selection part, of the best lambda.
        strength: that lambda as a share of the mean eigenvalue.
        path: accuracy of every lambda, in the order of `PATH`.
    """

    image: str | None
    text: str | None
    width: int
    accuracy: float
    strength: float
    path: tuple[float, ...]


def fit_head(data: TrainingData, image: str | None, text: str | None) -> Head:
    """Solve the path on the training part and choose lambda on the selection part; of equals the
    strongest."""
    from train.build import trainable
    from train.evaluate import gather
    from train.order import batches

    train, selection = data.parts["train"], data.parts[data.selection]
    classes = len(data.vocabulary)

    def rows(part: Any, examples: torch.Tensor) -> torch.Tensor:
        return torch.cat(list(gather(part, data.tables, examples).values()), dim=1)

    width = sum(table.width for table in data.tables.values())
    chunks = batches(train, data.tables, CHUNK, trainable(data))
    pairs = ((rows(train, chunk), train.truth[chunk]) for chunk in chunks)
    path = RidgePath(moments(pairs, width=width, classes=classes))
    answered = torch.from_numpy(selection.answered).nonzero()[:, 0]
    right = torch.zeros(len(PATH), dtype=torch.int64)
    for chunk in batches(selection, data.tables, CHUNK, answered):
        truth = selection.truth[chunk]
        predicted = torch.stack(list(path.predictions(rows(selection, chunk))))
        right += (predicted == truth).sum(dim=1)
    accuracies = tuple((right.double() / len(answered)).tolist())
    best = max(range(len(PATH)), key=lambda place: (accuracies[place], place))
    return Head(image, text, width, accuracies[best], PATH[best], accuracies)


def candidates(cache: Cache) -> list[tuple[str | None, str | None]]:
    """Every table alone and every pair of an image and a text table, by name."""
    found = list(cache.tables.values())
    images: list[str | None] = [table.name for table in found if table.modality == "image"]
    texts: list[str | None] = [table.name for table in found if table.modality == "text"]
    alone = [*((name, None) for name in images), *((None, name) for name in texts)]
    return [*alone, *((image, text) for image in images for text in texts)]


def rank(
    cache: Cache, overrides: Sequence[str], console: Console
) -> tuple[list[Head], dict[str, str]]:
    """Heads for all candidates, the best first, and why some have none.

    Raises:
        TrainError: an override is wrong, or no candidate has a head.
    """
    from train.config import Experiment, apply_override, check
    from train.device import CPU
    from train.progress import say
    from train.training_data import load_data

    heads: list[Head] = []
    reasons: dict[str, str] = {}
    for image, text in candidates(cache):
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
        experiment = Experiment("ridge", config, "python -m precompute")
        name = " + ".join(filter(None, (image, text)))
        try:
            head = fit_head(load_data(experiment, cache, device=CPU), image, text)
        except TrainError as error:
            reasons[name] = str(error)
            say(console, f"{name}: left out: {error}")
            continue
        say(console, f"{name}: accuracy {head.accuracy:.4f}")
        heads.append(head)
    if not heads:
        listed = "; ".join(reasons.values()) or f"{cache.path} has no tables"
        raise TrainError(f"no table can be trained on: {listed}")
    return sorted(heads, key=lambda head: -head.accuracy), reasons


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--cache", type=click.Path(path_type=Path), default=Path("cache"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(overrides: tuple[str, ...], cache: Path, as_json: bool) -> None:
    """Rank the tables of a cache by closed-form heads on each, and on each image-text pair.

    KEY=VALUE sets what is read, for example features.dataset=shapes or answers.k=100.
    """
    from rich.console import Console

    import vqa_cache

    console = Console(stderr=as_json)
    check_overrides(overrides)
    heads, reasons = rank(vqa_cache.open(cache), overrides, console)
    if as_json:
        rows = [asdict(head) for head in heads]
        click.echo(json.dumps({"heads": rows, "lambdas": PATH, "reasons": reasons}))
    else:
        print_heads(heads, console)


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


def print_heads(heads: Sequence[Head], console: Console) -> None:
    """The ranking as a table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="ridge heads", title_justify="left", box=SIMPLE_HEAD)
    for column in ("image", "text"):
        table.add_column(column, overflow="fold")
    for column in ("width", "lambda", "accuracy"):
        table.add_column(column, justify="right", no_wrap=True)
    for head in heads:
        accuracy, strength = f"{head.accuracy:.4f}", f"{head.strength:.0e}"
        table.add_row(head.image or "-", head.text or "-", f"{head.width:,}", strength, accuracy)
    console.print(table)


if __name__ == "__main__":
    run_command(command, "train.ridge")
