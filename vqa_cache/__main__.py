"""`python -m vqa_cache` (installed as `vqa-cache`): look after a cache."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table as RichTable

from vqa_cache.cache import Cache, open_cache, spec_text
from vqa_cache.errors import CacheError
from vqa_cache.explain import explain, in_words
from vqa_cache.table import Table
from vqa_cache.verify import verify


class OneLineErrors(click.Group):
    """A group whose commands report a user's error as one line on stderr and exit 1."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        try:
            return super().main(args, *rest, **extra)
        except CacheError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)


cache_argument: Callable[..., Any] = click.argument(
    "cache", default="cache", type=click.Path(file_okay=False)
)
cache_option: Callable[..., Any] = click.option(
    "--cache", default="cache", show_default=True, type=click.Path(file_okay=False)
)
json_option: Callable[..., Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object."
)


@click.group(cls=OneLineErrors)
def main() -> None:
    """Look after a cache of encoder outputs."""


@main.command()
@cache_argument
@json_option
def ls(cache: str, as_json: bool) -> None:
    """List the tables and splits of CACHE."""
    opened = open_cache(cache)
    tables = opened.summary()
    splits = {name: len(opened.split(name)) for name in opened.splits}
    if as_json:
        click.echo(json.dumps({"tables": tables, "splits": splits}))
        return
    shown = RichTable("table", "rows", "shape", "MB", "failed", "precision", "spec", box=None)
    for row in tables:
        shown.add_row(
            row["name"],
            f"{row['rows']:,}",
            "x".join([*(["*"] if row["ragged"] else []), *map(str, row["shape"])]),
            f"{row['bytes'] / 1e6:,.1f}",
            str(row["failed"]),
            row["precision"],
            row["spec"],
        )
    console = Console() if sys.stdout.isatty() else Console(width=240)
    console.print(shown)
    for name, count in splits.items():
        console.print(f"{name}: {count:,} examples", highlight=False)


@main.command()
@cache_argument
@click.argument("table", required=False)
@json_option
def info(cache: str, table: str | None, as_json: bool) -> None:
    """Tell all about one TABLE (its name or a unique part of it), or about every one."""
    opened = open_cache(cache)
    chosen = [opened.tables[table]] if table else list(opened.tables.values())
    described = [_describe(opened, item.name) for item in chosen]
    if as_json:
        click.echo(json.dumps(described))
        return
    for item in described:
        click.echo(item["name"])
        for name, value in item.items():
            if name != "name":
                text = json.dumps(value) if isinstance(value, dict | list) else value
                click.echo(f"  {name}: {text}")


def _describe(cache: Cache, name: str) -> dict[str, Any]:
    table = cache.tables[name]
    record = table.record
    canaries = {key: value for key, value in record["canaries"].items() if key != "rows"}
    return {
        "name": table.name,
        "rows": len(table),
        "bytes": table.stored_bytes,
        "shards": len(table.shards),
        "failed": {key.hex(): why for key, why in table.failed.items()},
        "specs": [spec_text(spec) for spec in table.specs()],
        **({"tokens": table.stored_bytes // table.row_bytes} if table.ragged else {}),
        **{key: record[key] for key in ("id", "row_shape", "ragged", "dtype", "container")},
        **{key: record[key] for key in ("precision", "batch_plan", "rows_per_shard", "threads")},
        "canaries": canaries,
        "identity": record["identity"],
        "environment": record["environment"],
    }


@main.command("verify")
@cache_argument
@click.option("--quick", is_flag=True, help="Check records and file sizes, not every byte.")
@json_option
def verify_command(cache: str, quick: bool, as_json: bool) -> None:
    """Check CACHE against its records; exit 1 if anything is wrong."""
    problems = list(verify(open_cache(cache), content=not quick))
    if as_json:
        click.echo(json.dumps({"problems": problems}))
    else:
        for problem in problems:
            click.echo(problem)
        if not problems:
            click.echo(f"{cache}: every record and {'file size' if quick else 'byte'} is right")
    sys.exit(1 if problems else 0)


@main.command("explain")
@click.argument("a")
@click.argument("b")
@cache_option
@json_option
def explain_command(a: str, b: str, cache: str, as_json: bool) -> None:
    """Say why two tables differ. A and B are names, or unique parts of names, of tables in the
    cache; a table of another cache is named by its folder."""
    found = explain(_named_table(cache, a), _named_table(cache, b))
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    for line in in_words(found):
        click.echo(line)


def _named_table(cache: str, name: str) -> Table:
    if (Path(name) / "table.json").is_file():
        return Table(Path(name))
    return open_cache(cache).tables[name]


if __name__ == "__main__":
    main()
