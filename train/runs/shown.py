"""A run, a sweep and a comparison as a person reads them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from train.evaluation.result import with_error
from train.runs.comparison import FEW_IMAGES, Difference
from train.runs.tabular import print_rows

_SHOWN = 10  # evaluated epochs, trials
_SETTINGS = ("features.image", "features.text", "question.name", "attention.name", "fusion.name",
             "head.name", "loss.name", "optimizer.name", "optimizer.lr", "train.epochs",
             "train.batch_size")  # fmt: skip
_BASELINES = ("majority", "question_only", "image_only")


def print_summary(described: dict[str, Any]) -> None:
    """What a run was, and how good it is."""
    values = described["values"]
    click.echo(f"{described['run']}: {described['status']}{_reason(described)}")
    took = ""
    if described["began"]:
        ended = described["ended"]
        took = f", {_duration(ended - described['began'])}" if ended else ""
        click.echo(f"began {_time(described['began'])}{took}")
    click.echo(f"{described['path']}\n")
    names = [name for name in _SETTINGS if values.get(name) is not None]
    rows = [{"setting": name, "value": values[name]} for name in names]
    dataset = {"setting": "features.dataset", "value": values.get("features.dataset")}
    print_rows([dataset, *rows, {"setting": "seed", "value": values.get("seed")}],
               ["setting", "value"])  # fmt: skip
    splits = [key.split(".")[1] for key in values if key.startswith("metrics.")]
    rows = [_figures(values, split) for split in dict.fromkeys(splits)]
    if rows:
        click.echo()
        print_rows(rows, list(dict.fromkeys(name for row in rows for name in row)))
    if values.get("best.epoch") is not None:
        epoch = round(values["best.epoch"], 2)
        click.echo(f"\nbest epoch {epoch:g}, by {values['best.metric']} of {values['best.split']}")
    click.echo("every setting, figure and snapshot: --all")


def _figures(values: dict[str, Any], split: str) -> dict[str, Any]:
    accuracy = values.get(f"metrics.{split}.accuracy")
    row = {
        "split": split,
        "accuracy": with_error(accuracy, values.get(f"metrics.{split}.accuracy_se")),
        "top5_accuracy": values.get(f"metrics.{split}.top5_accuracy"),
        "n": values.get(f"metrics.{split}.n"),
        "ceiling": values.get(f"metrics.{split}.ceiling"),
    }
    for name in _BASELINES:
        key = f"baselines.{name}.{split}.accuracy"
        if key in values:
            row[name] = values[key]
    return row


def _reason(described: dict[str, Any]) -> str:
    return f" ({described['reason']})" if described.get("reason") else ""


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def print_details(described: dict[str, Any]) -> None:
    """Everything of a run; of its evaluated epochs the newest alone."""
    for name, value in described.items():
        if value is not None and not isinstance(value, dict | list):
            told = _time(value) if name in ("began", "ended") else value
            click.echo(f"{name}: {told}")
    click.echo()
    print_rows([{"key": k, "value": v} for k, v in described["values"].items()], ["key", "value"])
    if described["metrics"]:
        click.echo()
        wide: dict[tuple[Any, ...], dict[str, Any]] = {}
        for point in described["metrics"]:
            key = (point["step"], point["part"])
            first = {name: point[name] for name in ("epoch", "step", "part")}
            wide.setdefault(key, first)[point["name"]] = point["value"]
        rows = list(wide.values())[-_SHOWN:]
        print_rows(rows, list(dict.fromkeys(name for row in rows for name in row)))
    if described["snapshots"]:
        click.echo()
        rows = [item | {"validated": bool(item["validated"])} for item in described["snapshots"]]
        print_rows(rows, ["name", "step", "epoch", "validated"])


def print_difference(found: Difference) -> None:
    """The difference in accuracy, with its interval and what it holds for."""
    click.echo(f"\n{found.split} accuracy  A {found.a:.4f}  B {found.b:.4f}")
    click.echo(
        f"B - A  {found.difference:+.4f}, 95% interval {found.low:+.4f} to {found.high:+.4f}, "
        f"n {found.n:,} questions of {found.images:,} images, clustered by image; {found.rule}"
    )
    seeds = found.seeds_a, found.seeds_b
    if all(len(one) == 1 for one in seeds):
        click.echo("one seed each: what another seed would change is not in the interval")
    else:
        paired = sorted(seeds[0]) == sorted(seeds[1])
        how = "in pairs" if paired else "each for itself"
        click.echo(
            f"seeds A {', '.join(map(str, seeds[0]))}, B {', '.join(map(str, seeds[1]))}, judged "
            f"{how}: the interval is of a new set of images and of seeds"
        )
    if found.images < FEW_IMAGES:
        click.echo(f"with fewer than {FEW_IMAGES} images the interval itself is rough")


def print_sweep(described: dict[str, Any]) -> None:
    """For a person: the trials with the highest values."""
    trials = described["trials"]
    click.echo(f"sweep: {described['sweep']}\npath: {described['path']}\n")
    settings = [{"key": key, "value": value} for key, value in described["settings"].items()]
    print_rows(settings, ["key", "value"])
    done = sorted(
        (t for t in trials if isinstance(t["value"], int | float)), key=lambda t: -t["value"]
    )
    click.echo(f"\n{len(trials)} trials; the {min(_SHOWN, len(done))} with the highest values:")
    rows = [{"trial": t["trial"], "value": t["value"], **t["params"]} for t in done[:_SHOWN]]
    print_rows(rows, list(dict.fromkeys(["trial", "value", *(key for r in rows for key in r)])))
