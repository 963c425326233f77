"""Look at a dataset, print the files it expects, make one: `python -m data --help`."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from data.answers import same_when_normalised
from data.example import Dataset, DatasetError, Example, Problem, tree_command
from data.registry import open_dataset

SHOWN = 10  # problems printed of each split; all are counted


class _OneLineErrors(click.Group):
    """A user's error is one line on stderr and exit 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (DatasetError, OSError) as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(1)


@click.group(
    cls=_OneLineErrors,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
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
        number = sum(1 for _ in dataset.root.glob(pattern))
        found = "missing" if not number else f"{number:,} files" if "*" in pattern else "found"
        click.echo(f"  {found:>14}  {pattern}")


@main.command()
@click.argument("name")
@click.argument("root", required=False, type=click.Path(path_type=Path))
@click.option("--limit", type=click.IntRange(min=0), help="Open this many images a split at most.")
def check(name: str, root: Path | None, limit: int | None) -> None:
    """Count dataset NAME under ROOT, open its images, and list what is wrong (exit 1)."""
    dataset = open_dataset(name, root)
    splits = dataset.splits()
    if not splits:
        raise DatasetError(
            f"dataset {name}: no split in {dataset.root}; `{tree_command(dataset)}` prints the "
            "files expected"
        )
    checked = {split: _check_split(dataset, split, limit) for split in splits}
    for split, content in checked.items():
        click.echo(_summary(split, content))
        for what in content.wrong[:SHOWN]:
            click.echo(f"  {what}")
        if len(content.wrong) > SHOWN:
            click.echo(f"  … and {len(content.wrong) - SHOWN:,} more")
        for remark in content.remarks:
            click.echo(f"  note: {remark}")
    wrong = sum(len(content.wrong) for content in checked.values())
    for first, second, shared in _overlaps(checked):
        click.echo(f"{first} and {second} share {shared:,} images")
        wrong += shared
    if wrong:
        raise DatasetError(f"dataset {name}: {wrong:,} things wrong in {dataset.root}, see above")
    click.echo(f"dataset {name}: nothing wrong in {dataset.root}")


@dataclass(slots=True)
class _Checked:
    """What one split holds: counts, digests of its image files by path, what is wrong."""

    annotated: bool
    examples: int = 0
    questions: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    images: dict[str, bytes | None] = field(default_factory=dict)
    opened: int = 0
    wrong: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, example: Example) -> None:
        self.examples += 1
        self.questions.add(example.question)
        if example.answer is not None:
            self.answers[example.answer] += 1
        self.images.update(dict.fromkeys(example.images))


def _check_split(dataset: Dataset, split: str, limit: int | None) -> _Checked:
    content = _Checked(dataset.annotated(split))
    problems: list[Problem] = []
    for example in dataset.examples(split, problems):
        content.add(example)
    content.wrong += [problem.what for problem in problems]
    if split == "train" and content.examples and not content.annotated:
        content.wrong.append(f"{split}: no answers, so nothing can be trained on it")
    if not content.examples and not content.wrong:
        content.wrong.append(f"{split}: no questions, expected some")
    content.remarks += dataset.remarks(split) + _spelt_apart(split, content.answers)
    for image in list(content.images)[:limit]:
        try:
            content.images[image] = _open_image(dataset.root / image)
            content.opened += 1
        except DatasetError as error:
            content.wrong.append(str(error))
    return content


def _spelt_apart(split: str, answers: Iterable[str]) -> list[str]:
    """A line where answers differ in case, blanks or punctuation alone."""
    groups = [group for group in same_when_normalised(answers) if len(group) > 1]
    if not groups:
        return []
    count, named = sum(map(len, groups)), ", ".join(map(repr, groups[0][:SHOWN]))
    return [
        f"{split}: {count:,} answers are {len(groups):,} in other spellings ({named}); "
        "answers.normalise=vqa makes one class of each"
    ]


def _open_image(path: Path) -> bytes:
    """Digest of an image file; DatasetError for what stage 1 could not decode either."""
    from data.images import ImageError, open_image

    try:
        open_image(str(path))
        return hashlib.sha256(path.read_bytes()).digest()
    except ImageError as error:
        raise DatasetError(f"{path}: {error}") from None
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None


def _summary(split: str, content: _Checked) -> str:
    kind = f"{len(content.answers):,} distinct answers" if content.annotated else "unlabelled"
    return (
        f"{split}: {content.examples:,} questions ({len(content.questions):,} distinct), {kind}, "
        f"{len(content.images):,} images ({content.opened:,} opened), "
        f"{len(content.wrong):,} problems"
    )


def _overlaps(checked: dict[str, _Checked]) -> list[tuple[str, str, int]]:
    """Pairs of splits and how many images of the second the first has too, by path or content."""
    found = []
    names = list(checked)
    for place, first in enumerate(names):
        digests = {digest for digest in checked[first].images.values() if digest}
        for second in names[place + 1 :]:
            images = checked[second].images.items()
            shared = sum(p in checked[first].images or d in digests for p, d in images)
            if shared:
                found.append((first, second, shared))
    return found


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
