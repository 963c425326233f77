"""`python -m train.runs`: look at runs, compare them, queue trainings. See registry.py.

RUN is a run's folder, its id, or a unique prefix of the id.
"""

from __future__ import annotations

import sqlite3
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from train.command_line import (
    cache_option,
    json_option,
    overrides_argument,
    runs_option,
)
from train.errors import TrainError
from train.runs import database
from train.runs.registry import Registry, check_folder, open_registry
from train.runs.select import check_keys, find_run, known_keys, parse_condition, select_runs
from train.runs.tabular import print_curves, print_json, print_rows, text_of
from vqa_cache.system.commands import Group

RUNS = "train.runs"  # in a command's context: the folder it looks at
ALWAYS = ("run", "status", "features.dataset", "seed")
HEADLINES = tuple(f"metrics.{split}.accuracy" for split in ("val", "held_out", "test"))


def opened(runs: Path) -> Registry:
    """The registry of an existing runs folder, closed when the command ends."""
    click.get_current_context().meta[RUNS] = runs
    return closed_at_end(open_registry(runs))


def closed_at_end(registry: Registry) -> Registry:
    """Close a registry when the command ends."""
    click.get_current_context().call_on_close(registry.close)
    return registry


class _Registry(Group):
    """Says of an error of the registry's what mends it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except sqlite3.DatabaseError as error:
            remedy = f"; mend it with: {database.shown_command('rebuild', ctx.meta[RUNS])}"
            advice = remedy if database.is_damage(error) else ""
            raise TrainError(f"the run registry: {error}{advice}") from error


@click.group(cls=_Registry)
def command() -> None:
    """Look at runs, compare them, queue trainings."""


@command.command()
@click.option("--sort", metavar="KEY", help="Sort by a setting or figure; -KEY: largest first.")
@click.option("--reverse", is_flag=True, help="Largest first.")
@click.option("--where", metavar="KEY=VALUE", multiple=True, help="Also KEY=LOW:HIGH. May repeat.")
@click.option("--show", metavar="KEY", multiple=True, help="A further column. May repeat.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many runs.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page here instead.")
@json_option
@runs_option
def ls(
    sort: str | None,
    reverse: bool,
    where: tuple[str, ...],
    show: tuple[str, ...],
    limit: int | None,
    html: Path | None,
    as_json: bool,
    runs: Path,
) -> None:
    """List runs: by any key of a config or a result, such as head.name, optimizer.lr,
    metrics.val.accuracy, status. Without --where sweeps follow."""
    from train.runs.details import list_sweeps

    registry = opened(runs)
    conditions = [parse_condition(text) for text in where]
    key = sort.removeprefix("-") if sort else None
    reverse = reverse != bool(sort and sort.startswith("-"))
    keys = [item.key for item in conditions] + ([key] if key else [])
    check_keys(registry.db, show)
    headlines = [name for name in HEADLINES if name in known_keys(registry.db)]
    columns = list(dict.fromkeys([*ALWAYS, *headlines, *keys, *show]))
    rows = select_runs(
        registry, where=conditions, sort=key, reverse=reverse, show=columns, limit=limit
    )
    sweeps = [] if where else list_sweeps(registry)
    if as_json:
        print_json({"runs": rows, "sweeps": sweeps})
        return
    if html is not None:
        from train.runs.listing_page import page

        listed = [("runs", rows, columns), ("sweeps", sweeps, list(sweeps[0]) if sweeps else [])]
        html.write_text(page(listed), encoding="utf-8")
        click.echo(f"page: {html}")
        return
    print_rows(rows, columns)
    if sweeps:
        click.echo()
        print_rows(sweeps, list(sweeps[0]))


@command.command()
@click.argument("run")
@click.option("--all", "everything", is_flag=True, help="Every setting, figure and snapshot.")
@json_option
@runs_option
def show(run: str, everything: bool, as_json: bool, runs: Path) -> None:
    """Tell about one RUN, or about a sweep; the beginning of its id is enough."""
    from train.runs.details import describe_run, describe_sweep, find_sweep
    from train.runs.shown import print_details, print_summary, print_sweep

    registry = opened(runs)
    sweep = find_sweep(registry, run)
    found = describe_sweep(registry, sweep) if sweep else None
    described = found or describe_run(registry, find_run(registry, run))
    if as_json:
        print_json(described)
    elif found:
        print_sweep(found)
    elif everything:
        print_details(described)
    else:
        print_summary(described)


@command.command()
@click.argument("a")
@click.argument("b")
@click.option("--split", help="Whose predictions to compare; test where both have it.")
@json_option
@cache_option
@runs_option
def compare(a: str, b: str, split: str | None, as_json: bool, cache: Path, runs: Path) -> None:
    """Settings in which A and B differ, their curves, and the difference in accuracy (B - A)
    with its 95 % interval, clustered by image.

    A and B are runs, or experiments: then their finished runs, which differ in seed alone, are
    compared as groups, and the interval takes in how much seeds differ.
    """
    from train.runs.comparison import compare_accuracy, curves, differing_settings, find_group
    from train.runs.shown import print_difference

    registry = opened(runs)
    groups = [find_group(registry, name) for name in (a, b)]
    settings = differing_settings(registry, *groups)
    both = [curves(registry, group) for group in groups]
    paths = [[runs / run for run in group] for group in groups]
    if as_json:
        print_json(
            {
                "a": groups[0],
                "b": groups[1],
                "settings": settings,
                "curves": [{f"{p}.{n}": v for (p, n), v in each.items()} for each in both],
                "accuracy": asdict(compare_accuracy(paths[0], paths[1], cache, split=split)),
            }
        )
        return
    for label, group in zip("AB", groups, strict=True):
        click.echo(f"{label}  {', '.join(group)}")
    click.echo()
    rows = [{"setting": key, "A": x, "B": y} for key, (x, y) in settings.items()]
    print_rows(rows, ["setting", "A", "B"])
    print_curves(both)
    # last: runs that cannot be judged have settings and curves all the same
    print_difference(compare_accuracy(paths[0], paths[1], cache, split=split))


@command.command()
@click.argument("run", nargs=-1)
@click.option("--pending", is_flag=True, help="Only snapshots that lack a metric known now.")
@json_option
@cache_option
@runs_option
def validate(run: tuple[str, ...], pending: bool, as_json: bool, cache: Path, runs: Path) -> None:
    """Evaluate snapshots of each RUN, or of all runs, without training."""
    from train.runs.records import read_run
    from train.runs.validation import lacking
    from train.runs.validation import validate as evaluate
    from vqa_cache.errors import CacheError

    registry = opened(runs)
    names = [find_run(registry, name) for name in run] or [
        row[0] for row in registry.db.execute("SELECT run FROM runs ORDER BY run")
    ]
    rows, errors = [], []
    for name in names:
        folder = runs / name
        snapshots = list(lacking(folder)) if pending else read_run(folder).snapshots
        try:
            for row in evaluate(folder, cache, snapshots) if snapshots else ():
                rows.append({"run": name, **row})
                if not as_json:
                    accuracy = text_of(row["metrics"]["accuracy"])
                    click.echo(f"{name} {row['snapshot']}: {row['part']} accuracy {accuracy}")
        except (TrainError, CacheError) as error:  # the other runs are evaluated all the same
            errors.append(str(error))
        registry.index_run(folder)
    if as_json:
        print_json({"validated": rows})
    else:
        click.echo(f"{len(rows)} snapshots evaluated")
    if errors:
        raise TrainError("\n".join(errors))


@command.command()
@click.argument("experiment", required=False)
@overrides_argument
@click.option("--remove", type=int, metavar="JOB", help="Take a job out of the queue.")
@json_option
@cache_option
@runs_option
def queue(
    experiment: str | None,
    overrides: tuple[str, ...],
    remove: int | None,
    as_json: bool,
    cache: Path,
    runs: Path,
) -> None:
    """Queue the training of an EXPERIMENT for `work`; without one, list the queue."""
    from train.runs.queue import Queue

    if experiment is None:
        check_folder(runs)
        jobs = Queue(runs)
        if remove is not None:
            jobs.remove(remove)
        _list_queue(jobs.jobs(), as_json)
        return
    if remove is not None:
        raise click.UsageError("--remove takes no experiment")
    from train.config.files import load_experiment

    load_experiment(experiment, overrides)  # wrong ones are refused now, not in the night
    name = str(Path(experiment).resolve()) if Path(experiment).is_file() else experiment
    number = Queue(runs).add(name, overrides, cache=cache.resolve(), folder=Path.cwd())
    if as_json:
        print_json({"job": number})
    else:
        click.echo(f"job {number}: {' '.join([experiment, *overrides])}")


def _list_queue(jobs: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json({"jobs": jobs})
        return
    rows = [row | {"overrides": " ".join(row["overrides"])} for row in jobs]
    print_rows(rows, ["id", "status", "experiment", "overrides", "attempts", "run", "last_line"])


@command.command()
@click.option("--wait", is_flag=True, help="Wait for further jobs when the queue is empty.")
@runs_option
def work(wait: bool, runs: Path) -> None:
    """Train what is queued, one job after another. SIGTERM or Ctrl-C: the job goes back."""
    from train.runs.queue import Queue
    from train.runs.worker import Stop, Worker
    from vqa_cache.system.signals import EXIT_STOPPED

    check_folder(runs)
    with Stop() as stop:
        worker = Worker(Queue(runs), stop, click.echo, wait=wait)
        worker.work()
    if stop.asked:
        sys.exit(EXIT_STOPPED)
    if worker.failed:
        raise TrainError("\n".join(worker.failed))


@command.command()
@click.option("--older-than", default="30d", help="Such as 90m, 12h, 30d, 2w.")
@click.option("--yes", is_flag=True, help="Really remove; otherwise only say what would go.")
@json_option
@runs_option
def clean(older_than: str, yes: bool, as_json: bool, runs: Path) -> None:
    """Remove unfinished and failed runs that nothing touched for long, and, whatever their age,
    snapshots of finished runs other than the best one."""
    from train.runs.cleaning import parse_age, removable, take_away

    registry = opened(runs)
    found = list(removable(runs, parse_age(older_than)))
    for item in found if yes else ():
        take_away(runs, item)
    registry.refresh()
    total = sum(item.bytes for item in found)
    if yes:
        for name in {item.path.parent.parent for item in found if item.path.parent != runs}:
            registry.index_run(name)
    if as_json:
        rows = [{"path": str(item.path), "why": item.why, "bytes": item.bytes} for item in found]
        print_json({"removed" if yes else "would_remove": rows, "bytes": total})
        return
    for item in found:
        click.echo(f"{item.path}  {item.bytes / 1e6:,.1f} MB  {item.why}")
    done = "removed" if yes else "would be removed; --yes removes them"
    click.echo(f"{len(found)} folders, {total / 1e6:,.1f} MB {done}")


@command.command()
@click.option("--csv", "file", required=True, help="The file to write; - is the screen.")
@runs_option
def export(file: str, runs: Path) -> None:
    """Write a table of all runs, a row each."""
    from train.runs.details import write_csv

    rows = write_csv(opened(runs), file)
    click.echo(f"{rows} runs written to {file}", err=True)


@command.command()
@runs_option
def rebuild(runs: Path) -> None:
    """Make the registry anew from the folders of runs and sweeps."""
    registry = opened(runs)
    registry.rebuild()
    for table in ("runs", "sweeps"):
        count = registry.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        click.echo(f"{count} {table}")


@command.command()
@click.argument("query")
@json_option
@runs_option
def sql(query: str, as_json: bool, runs: Path) -> None:
    """Ask the registry's tables directly; only SELECT works. `SELECT sql FROM sqlite_master`
    shows the tables."""
    from train.runs.details import ask

    columns, rows = ask(opened(runs), query)
    if as_json:
        print_json({"rows": rows})
    else:
        print_rows(rows, columns)


if __name__ == "__main__":
    command()
