"""Every experiment that ships, in a line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.config.files import load_experiment
from train.config.schema import Experiment, Published
from vqa_cache.experiments import EXPERIMENTS, describe, experiment_files

Entry = Mapping[str, Any]
CATALOGUE = EXPERIMENTS / "README.md"
FIGURES = EXPERIMENTS / "journals" / "figures.json"  # what `benchmarks systems --json` printed
_BEGINNING = """# Experiments

Made by `python -m train --list --markdown`. One file an experiment; `python -m train --show NAME`
prints one with all that it extends.

*Fidelity*: `exact`; `frozen_form` of a system that also trained its encoder, or ran it in training
mode; `proxy` where a part is not the published one; a file's `why` says what differs. *Published*:
accuracy, on what, of how many questions where that is known.
"""
_MEASURED = """
*Ours `ON=shapes`*: accuracy on the {split} split ({n:,} questions) of `shapes` with {images:,}
images and {questions:,} questions, over the encoders that stand in there, after one epoch of one
seed: a proof that the system runs through both stages, no comparison. An epoch is two steps where a
batch holds 5,000, and hundreds where it holds 25. `journals/figures.json` is what
`python -m benchmarks systems --json` printed on {cpu} ({threads} thread), Python {python}, torch
{torch}.
"""
_COLUMNS = ("name", "what it is", "fidelity", "published")
_OURS = "ours `ON=shapes`"


def catalogue() -> dict[str, Entry]:
    """Name -> what `--list` says of it. Raises ConfigError where a file is wrong."""
    return {name: _entry(load_experiment(name), path) for name, path in experiment_files().items()}


def _entry(experiment: Experiment, path: Path) -> Entry:
    features, about = experiment.config.features, experiment.about
    return {
        "group": path.parent.relative_to(EXPERIMENTS).as_posix(),
        "what": describe(path),
        "dataset": features.dataset,
        "image": features.images,
        "text": features.texts,
        "answer_text": features.answer_text,
        **about.model_dump(include={"source", "fidelity", "why", "published", "faithful"}),
    }


def as_lines(entries: Mapping[str, Entry]) -> list[str]:
    """A line each: name, fidelity, published accuracy, what it is."""
    rows = [
        (
            name,
            entry["fidelity"] or "",
            f"{entry['published']['figure']:.4f}" if entry["published"] else "",
            entry["what"],
        )
        for name, entry in entries.items()
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]


def read_figures() -> dict[str, Any]:
    """What `python -m benchmarks systems --json` found, as it is kept beside the experiments."""
    found: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return found


def as_markdown(entries: Mapping[str, Entry], figures: Mapping[str, Any]) -> str:
    """The catalogue as a page: a table for each folder, with a column of the figures where they
    tell of its experiments."""
    ours = figures["accuracy"]
    [(split, n)] = {(one["split"], one["n"]) for one in ours.values()}
    parts = [
        _BEGINNING,
        _MEASURED.format(split=split, n=n, **figures["made"], **figures["environment"]).lstrip(),
    ]
    for group in dict.fromkeys(entry["group"] for entry in entries.values()):
        members = {name: entry for name, entry in entries.items() if entry["group"] == group}
        columns = [*_COLUMNS, *([_OURS] if members.keys() & ours.keys() else [])]
        rows = [columns, ["---"] * len(columns)]
        for name, entry in members.items():
            row = [f"`{name}`", entry["what"], entry["fidelity"] or ""]
            row += [_published(entry["published"])]
            row += [f"{ours[name]['accuracy']:.4f}" if name in ours else ""]
            rows.append(row[: len(columns)])
        lines = [f"| {' | '.join(row)} |" for row in rows]
        parts.append("\n".join([f"## {group}", "", *lines, ""]))
    return "\n".join(parts)


def _published(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    one = Published(**found)
    n = f", n = {one.n:,}" if one.n else ""
    return f"{one.figure:.4f} ({one.split}{n})"
