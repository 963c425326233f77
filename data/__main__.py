"""Look at a dataset, print the files it expects, make one: `python -m data --help`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from data import check_text
from data.check import as_object, check_dataset
from data.example import DatasetError
from data.gqa import Gqa
from data.records import is_visible
from data.registry import open_dataset
from data.submission import submission

CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}


class _Command(click.Command):
    """A command whose help has a short name also where it is called without its group."""

    def __init__(self, name: str | None, **settings: Any) -> None:
        super().__init__(name, **{"context_settings": CONTEXT, **settings})


class _OneLineErrors(click.Group):
    """A user's error is one line on stderr and exit 1."""

    command_class = _Command
    group_class = type  # groups below are such groups, too

    def __init__(self, name: str | None = None, **settings: Any) -> None:
        super().__init__(name, **{"context_settings": CONTEXT, **settings})

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (DatasetError, OSError) as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(1)


@click.group(cls=_OneLineErrors)
def main() -> None:
    """Look at a dataset, print the files it expects, make one."""


@main.command()
@click.argument("name")
@click.argument("root", required=False, type=click.Path(path_type=Path))
def tree(name: str, root: Path | None) -> None:
    """Print the files that dataset NAME expects under ROOT, and which are there."""
    dataset = open_dataset(name, root)
    click.echo(f"{dataset.root}/")
    for pattern in dataset.expected_files():
        number = sum(map(is_visible, dataset.root.glob(pattern)))
        found = "missing" if not number else f"{number:,} files" if "*" in pattern else "found"
        click.echo(f"  {found:>14}  {pattern}")


@main.command()
@click.argument("name")
@click.argument("root", required=False, type=click.Path(path_type=Path))
@click.option("--limit", type=click.IntRange(min=0), help="Open this many images a split at most.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.option("--page", type=click.Path(path_type=Path), help="Also write an HTML page here.")
def check(
    name: str, root: Path | None, limit: int | None, as_json: bool, page: Path | None
) -> None:
    """Count dataset NAME under ROOT, open its images, and list what is wrong (exit 1).

    What splits share comes first; then per split its answers, how far guessing without the image
    gets, and how much of it the most frequent answers cover.
    """
    checked = check_dataset(name, open_dataset(name, root), limit)
    if page is not None:
        page.write_text(check_text.page(checked), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(as_object(checked), ensure_ascii=False))
    else:
        for line in check_text.lines(checked):
            click.echo(line)
    if checked.wrong:
        raise DatasetError(
            f"dataset {name}: {checked.wrong:,} things wrong in {checked.root}, see above"
        )
    if not as_json:
        click.echo(f"dataset {name}: nothing wrong in {checked.root}")


@main.command()
@click.argument("name")
@click.argument("predictions", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the dataset.")
@click.option("--split", default="test")
def submit(name: str, predictions: Path, out: Path, root: Path | None, split: str) -> None:
    """Write a run's PREDICTIONS of a split to OUT, as the evaluator of dataset NAME loads them."""
    rows = submission(name, open_dataset(name, root), split, predictions)
    out.write_text(json.dumps(rows, ensure_ascii=False) + "\n", encoding="utf-8")
    click.echo(f"{out}: {len(rows):,} answers to {split} of {name}")


@main.command()
@click.argument("name", type=click.Choice(["gqa", "gqa_all"]))
@click.argument("predictions", type=click.Path(path_type=Path))
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the dataset.")
@click.option("--split", default="val")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def score(name: str, predictions: Path, root: Path | None, split: str, as_json: bool) -> None:
    """GQA's own figures of a run's PREDICTIONS: consistency, validity, plausibility,
    distribution."""
    from data.gqa_scores import gqa_scores

    dataset = open_dataset(name, root)
    assert isinstance(dataset, Gqa)
    found = gqa_scores(dataset, split, predictions)
    if as_json:
        click.echo(json.dumps(found))
        return
    reasons = found.pop("reasons")
    for figure, value in found.items():
        told = f"{value:.4f}" if isinstance(value, float) else value
        click.echo(f"{figure:>14}  {reasons.get(figure, told)}")


@main.group()
def make() -> None:
    """Make a dataset."""


@make.command("shapes")
@click.argument("root", required=False, type=click.Path(path_type=Path), default="datasets/shapes")
@click.option("--images", default=5000, help="Number of images, 3 at least.")
@click.option("--questions", default=50000, help="Questions, 3 at least.")
@click.option("--seed", default=0)
def make_shapes(root: Path, images: int, questions: int, seed: int) -> None:
    """Write the dataset `shapes` under ROOT, as VQA v2 JSON and images."""
    from data.shapes.dataset import Making, make

    started = time.monotonic()
    written = make(root, Making(images, questions, seed))
    content = f"{images:,} images and {questions:,} questions in {root}"
    if written:
        click.echo(f"made {content} in {time.monotonic() - started:.0f} s")
    else:
        click.echo(f"already made: {content}")


if __name__ == "__main__":
    main(prog_name="python -m data")
