"""`python -m train.report RUN [RUN ...]`: a page about runs and sweeps, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from train.command_line import TrainingCommand, cache_option, runs_option

if TYPE_CHECKING:
    from train.runs.registry import Registry


@click.command(cls=TrainingCommand)
@click.argument("names", nargs=-1, metavar="[RUN]...")
@click.option("--split", help="Whose answers are shown; test unless it has no answers.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write; report.html in the folder of all runs unless said.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=0),
    default=60,
    help="Questions to page through: so many hits, near misses and misses of each run.",
)
@cache_option
@runs_option
def command(
    names: tuple[str, ...],
    split: str | None,
    out: Path | None,
    samples: int,
    cache: Path,
    runs: Path,
) -> None:
    """Write a page about RUNs (run or sweep: its folder, its id, or the beginning of it); without
    one about the run that ended last.

    The page is one file and opens without a network. Truths and small pictures come from the
    cache.
    """
    from rich.console import Console

    from train.loop.progress import say
    from train.report.page import write_page
    from train.report.runs import read
    from train.report.sweeps import read as read_sweep
    from train.runs.registry import open_registry
    from vqa_cache.system.durable import write_file

    console = Console()
    registry = open_registry(runs)
    found = [find(registry, name) for name in names] or [newest(registry)]
    found = list(dict.fromkeys(found))
    of_runs = [read(runs / name, cache, split) for name in found if not is_sweep(registry, name)]
    of_sweeps = [read_sweep(registry, name) for name in found if is_sweep(registry, name)]
    for run in of_runs:
        if run.why_not is not None:
            say(console, f"note: {run.name}: no single answers are shown: {run.why_not}")
    target = out or runs / "report.html"
    write_file(target, write_page(of_runs, of_sweeps, cache=cache, most=samples).encode())
    say(console, f"report: {target}")


def sweeps_of(registry: Registry) -> list[str]:
    """Ids of all sweeps."""
    return [row[0] for row in registry.db.execute("SELECT sweep FROM sweeps ORDER BY sweep")]


def is_sweep(registry: Registry, name: str) -> bool:
    """Whether an id is a sweep's."""
    return name in sweeps_of(registry)


def find(registry: Registry, text: str) -> str:
    """The id of the run or sweep that a folder, an id or its beginning means. Raises TrainError."""
    from train.runs.select import find_run

    name = Path(text).name
    begins = [one for one in sweeps_of(registry) if one.startswith(name)]
    return begins[0] if len(begins) == 1 else find_run(registry, text)


def newest(registry: Registry) -> str:
    """The finished run that ended last. Raises TrainError where there is none."""
    from train.errors import TrainError

    query = "SELECT run FROM runs WHERE status = 'finished' ORDER BY ended DESC, run LIMIT 1"
    row = registry.db.execute(query).fetchone()
    if row is None:
        raise TrainError(
            f"{registry.runs}: no finished run to report; train one: python -m train cosine_answers"
        )
    return str(row[0])


if __name__ == "__main__":
    command()
