"""`python -m vqa_cache` (installed as `vqa-cache`): look after a cache."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from vqa_cache.cache import Cache, create_cache, open_cache, spec_text
from vqa_cache.containers import Container
from vqa_cache.dtypes import SHORT_NAMES
from vqa_cache.errors import CacheError
from vqa_cache.system.commands import Group, cache_option, json_option
from vqa_cache.system.durable import remove, remove_stale_temporaries
from vqa_cache.system.lines import one_line
from vqa_cache.system.printing import print_table
from vqa_cache.table import Table
from vqa_cache.tools.explain import explain, in_words
from vqa_cache.tools.exporting import export_table
from vqa_cache.tools.foreign import BOXES, FORMATS
from vqa_cache.tools.garbage import find_garbage
from vqa_cache.tools.importing import KEY_BY, collect, import_table, key_function, open_sources
from vqa_cache.tools.item_names import item_names
from vqa_cache.tools.stores import is_store, local_path, mirror, place_of
from vqa_cache.tools.transfer import copy_split, copy_table, copy_thumbnails
from vqa_cache.tools.verify import verify
from vqa_cache.withdrawals import chosen_keys, drop_thumbnails


def cache_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """The cache itself is what the command is about, so it may stand alone: `verify CACHE` is
    `verify --cache CACHE`."""
    place = click.Path(path_type=Path)
    named = click.option("--cache", type=place, help="The same as CACHE.  [default: cache]")

    @functools.wraps(command)
    def chosen(folder: Path | None, cache: Path | None, **rest: Any) -> Any:
        if folder is not None and cache is not None:
            raise click.UsageError(f"two caches named: {folder} and --cache {cache}")
        return command(cache=folder or cache or Path("cache"), **rest)

    return click.argument("folder", metavar="[CACHE]", required=False, type=place)(named(chosen))


@click.group(cls=Group)
def main() -> None:
    """Look after a cache of encoder outputs."""


@main.command()
@cache_argument
@json_option
def ls(cache: Path, as_json: bool) -> None:
    """List the tables and splits of CACHE."""
    opened = open_cache(cache)
    tables = opened.summary()
    splits = {name: len(opened.split(name)) for name in opened.splits}
    if as_json:
        click.echo(json.dumps({"tables": tables, "splits": splits}))
        return
    columns = ("table", "rows", "shape", "MB", "failed", "precision", "spec")
    rows = [
        {
            "table": row["name"],
            "rows": f"{row['rows']:,}",
            "shape": "x".join([*(["*"] if row["ragged"] else []), *map(str, row["shape"])]),
            "MB": f"{row['bytes'] / 1e6:,.1f}",
            "failed": str(row["failed"]),
            "precision": row["precision"],
            "spec": row["spec"],
        }
        for row in tables
    ]
    console = Console() if sys.stdout.isatty() else Console(width=240)
    print_table(rows, columns, ("rows", "MB", "failed"), console)
    for name, count in splits.items():
        console.print(f"{name}: {count:,} examples", highlight=False)


@main.command()
@click.argument("table", required=False)
@cache_option
@json_option
def info(table: str | None, cache: Path, as_json: bool) -> None:
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
            if name == "failed":
                click.echo(f"  failed: {len(value):,}")
                for one in value:
                    click.echo(f"    {one_line(one['item'] or one['key'])}: {one['error']}")
            elif name != "name":
                text = json.dumps(value) if isinstance(value, dict | list) else value
                click.echo(f"  {name}: {text}")


def _describe(cache: Cache, name: str) -> dict[str, Any]:
    table = cache.tables[name]
    record = table.record
    said = record.as_json()
    canaries = {key: value for key, value in said["canaries"].items() if key != "rows"}
    names = item_names(cache, table.failed)
    return {
        "name": table.name,
        "rows": len(table),
        "bytes": table.stored_bytes,
        "shards": len(table.shards),
        "failed": [
            {"key": key.hex(), "item": names.get(key), "error": why}
            for key, why in table.failed.items()
        ],
        "truncated": sum(record.truncated for record in table.shards),
        "specs": [spec_text(spec) for spec in table.specs()],
        **({"tokens": table.stored_bytes // table.row_bytes} if table.ragged else {}),
        **{key: said[key] for key in ("id", "row_shape", "ragged", "dtype", "container")},
        **{key: said[key] for key in ("precision", "batch_plan", "rows_per_shard")},
        **{key: said.get(key) for key in ("device", "threads")},
        "canaries": canaries,
        "identity": said["identity"],
        "environment": said["environment"],
    }


@main.command("verify")
@cache_argument
@click.option("--quick", is_flag=True, help="Check records and file sizes, not every byte.")
@json_option
def verify_command(cache: Path, quick: bool, as_json: bool) -> None:
    """Check CACHE against its records; exit 1 if anything is wrong."""
    problems = list(verify(open_cache(cache), content=not quick))
    if as_json:
        click.echo(json.dumps({"problems": problems}))
    else:
        for problem in problems:
            click.echo(one_line(problem))
        if not problems:
            click.echo(f"{cache}: every record and {'file size' if quick else 'byte'} is right")
    sys.exit(1 if problems else 0)


@main.command("explain")
@click.argument("a")
@click.argument("b")
@cache_option
@json_option
def explain_command(a: str, b: str, cache: Path, as_json: bool) -> None:
    """Say why two tables differ. A and B are names, or unique parts of names, of tables in the
    cache; a table of another cache is named by its folder."""
    found = explain(_named_table(cache, a), _named_table(cache, b))
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    for line in in_words(found):
        click.echo(line)


def _named_table(cache: Path, name: str) -> Table:
    if (Path(name) / "table.json").is_file():
        return Table(Path(name))
    return open_cache(cache).tables[name]


@main.command("withdraw")
@click.argument("table")
@cache_option
@click.option("--keys", type=click.Path(), metavar="FILE", help="One key a line, 32 hex digits.")
@click.option("--image", "images", multiple=True, type=click.Path(), metavar="PATH")
@click.option("--text", "texts", multiple=True)
@click.option("--reason", default="by request")
@json_option
def withdraw_command(
    table: str,
    cache: Path,
    keys: str | None,
    images: tuple[str, ...],
    texts: tuple[str, ...],
    reason: str,
    as_json: bool,
) -> None:
    """Serve rows of TABLE no more, nor encode them again. Their bytes stay in the shards; small
    pictures of withdrawn images are deleted."""
    opened = open_cache(cache)
    remove_stale_temporaries(opened.path)  # of a withdrawal that was interrupted
    chosen = opened.tables[table]
    wanted = chosen_keys(chosen.modality, keys=keys, images=images, texts=texts)
    if not wanted:
        raise click.UsageError("name what to withdraw: --keys FILE, --image PATH or --text TEXT")
    before = len(chosen)
    chosen.withdraw(wanted, reason)
    drop_thumbnails(open_cache(cache))
    after = len(Table(chosen.folder))
    told = {"table": chosen.name, "keys": len(set(wanted)), "rows": before - after, "left": after}
    if as_json:
        click.echo(json.dumps(told))
        return
    click.echo(
        f"{chosen.name}: {told['keys']:,} keys withdrawn, {told['rows']:,} of them had rows; "
        f"{after:,} rows are left"
    )


@main.command()
@cache_argument
@click.option("--yes", is_flag=True, help="Delete; otherwise only tell what would be deleted.")
@click.option("--minutes", default=60.0, help="Leave alone what changed since.")
@json_option
def gc(cache: Path, yes: bool, minutes: float, as_json: bool) -> None:
    """Delete what is no part of CACHE: unfinished work, superseded examples, shards without a
    record."""
    found = list(find_garbage(open_cache(cache), minutes=minutes))
    if yes:
        for item in found:
            remove(item.path)
    size = sum(item.bytes for item in found)
    if as_json:
        listed = [{**asdict(item), "path": str(item.path)} for item in found]
        click.echo(json.dumps({"deleted": yes, "bytes": size, "garbage": listed}))
        return
    for item in found:
        click.echo(f"{one_line(item.path)}: {item.why}, {item.bytes:,} bytes")
    done = "deleted" if yes else "would be deleted: say --yes" if found else "to delete"
    click.echo(f"{len(found):,} items, {size / 1e6:,.1f} MB {done}")


@main.command("copy")
@click.argument("source")
@click.argument("target")
@click.option("--tables", metavar="A,B", help="Only these, by (short) name; all otherwise.")
@click.option("--format", "container", type=click.Choice(["hdf5", "zarr"]))
@json_option
def copy_command(
    source: str, target: str, tables: str | None, container: Container | None, as_json: bool
) -> None:
    """Copy tables, splits and thumbnails of the cache SOURCE into TARGET, every byte checked.
    Either may be a folder or a URL: file://, s3://, gs://, az://."""
    wanted = tables.split(",") if tables else []
    if is_store(source) or is_store(target):
        if container is not None:
            raise click.UsageError("--format converts from folder to folder alone")
        mirrored = mirror(place_of(source), place_of(target), wanted)
        if as_json:
            click.echo(json.dumps(asdict(mirrored)))
            return
        click.echo(f"{mirrored.copied:,} files copied, {mirrored.present:,} were there")
        return
    source, target = local_path(source), local_path(target)
    opened = open_cache(source)
    if Path(target).resolve().is_relative_to(Path(source).resolve()):
        raise CacheError(f"{target}: is the source itself or inside it; name another folder")
    chosen = [opened.tables[name] for name in wanted] or list(opened.tables.values())
    goal = create_cache(target)
    remove_stale_temporaries(goal.path)  # of a copy that was interrupted
    done = [copy_table(table, goal, container) for table in chosen]
    done += [copy_split(opened, name, goal) for name in opened.splits]
    thumbnails = copy_thumbnails(opened, goal)
    if as_json:
        told = [asdict(item) for item in done]
        click.echo(json.dumps({"copied": told, "thumbnails": thumbnails}))
        return
    for item in done:
        click.echo(f"{item.name}: {item.copied:,} copied, {item.present:,} were there")
    click.echo(f"{thumbnails:,} thumbnails copied")


@main.command("import")
@click.argument("kind", type=click.Choice(list(FORMATS)), metavar=f"[{'|'.join(FORMATS)}]")
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH...")
@click.option("--encoder", required=True, metavar="NAME", help="What made the rows.")
@click.option("--key-by", type=click.Choice(KEY_BY), default="image")
@click.option("--images", type=click.Path(), help="Folder of the images that ids name.")
@click.option("--ids", multiple=True, type=click.Path(), help="What rows are of; one a PATH.")
@click.option("--column", help="Column of a parquet file of ids.")
@click.option("--dtype", type=click.Choice(list(SHORT_NAMES)), default="fp16")
@click.option("--format", "container", type=click.Choice(["hdf5", "zarr"]), default="hdf5")
@click.option("--on-error", type=click.Choice(["raise", "skip"]), default="raise")
@cache_option
@json_option
def import_command(
    kind: str,
    paths: tuple[str, ...],
    encoder: str,
    key_by: str,
    images: str | None,
    ids: tuple[str, ...],
    column: str | None,
    dtype: str,
    container: Container,
    on_error: str,
    cache: Path,
    as_json: bool,
) -> None:
    """Make tables of what other programs computed: bottom-up-attention HDF5 files, folders of npz
    regions, npy arrays, pt files. Boxes become a table beside the features."""
    key_of = key_function(key_by, images)
    sources = open_sources(kind, paths, ids, column)
    chosen = {tap: collect(rows, key_of, skip=on_error == "skip") for tap, rows in sources.items()}
    opened = create_cache(cache)
    remove_stale_temporaries(opened.path)  # of an import that was interrupted
    told: list[dict[str, Any]] = []
    for tap, (items, left_out) in chosen.items():
        table = import_table(
            opened,
            items,
            encoder=encoder,
            tap=tap,
            modality="text" if key_by == "text" else "image",
            dtype="float32" if tap == BOXES else SHORT_NAMES[dtype],  # pixels exceed fp16's digits
            container=container,
        )
        told.append({"table": table.name, "rows": len(table), "left_out": left_out})
    if as_json:
        click.echo(json.dumps({"tables": told}))
        return
    for line in told:
        click.echo(f"{line['table']}: {line['rows']:,} rows, {len(line['left_out']):,} left out")


@main.command("export")
@click.argument("table")
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--npy", "kind", flag_value="npy", help="rows.npy, keys.txt, texts.json.")
@click.option("--parquet", "kind", flag_value="parquet", help="rows.parquet.")
@click.option("--safetensors", "kind", flag_value="safetensors", help="rows.safetensors.")
@cache_option
def export_command(table: str, folder: str, kind: str | None, cache: Path) -> None:
    """Write TABLE into FOLDER for other programs."""
    if kind is None:
        raise click.UsageError("say how: --npy, --parquet or --safetensors")
    for path in export_table(_named_table(cache, table), kind, Path(folder)):
        click.echo(path)


if __name__ == "__main__":
    main()
