"""What others wrote, broken by chance: records, seals, columns, memo, TOML, datasets, pictures.

Every input is made from (seed, target, number) alone and runs in a process of its own kind, which
is watched: an error that is not one of the project's own, one line each, a message of several
lines, a process that dies or takes 20 s, and any file written, renamed or deleted outside the
input's own folder is a crash. `--target NAME --number N` runs one again.

\b
fuzz_inputs        inputs run
fuzz_crashes       those after which something of the above was seen: 0
crashes            the first ten of them
inputs_<target>    inputs of each target
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import click

from benchmarks.fuzz.targets import TARGETS
from benchmarks.fuzz.watching import Crash, run_inputs
from benchmarks.measuring.report import json_option, reported
from vqa_cache.system.commands import Command

_TOLD = 10


@click.command("fuzz", cls=Command, help=__doc__)
@click.option("--inputs", default=100_000, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
@click.option("--target", "targets", multiple=True, type=click.Choice(list(TARGETS)))
@click.option("--number", type=click.IntRange(min=0), help="Run this input alone.")
@json_option
def command(
    inputs: int, seed: int, targets: tuple[str, ...], number: int | None, as_json: bool
) -> None:
    with reported(as_json=as_json) as report:
        names, crashes = targets or tuple(TARGETS), list[Crash]()
        total = sum(TARGETS[name].share for name in names)
        for name in names:
            count = -(-inputs * TARGETS[name].share // total)
            numbers = range(count) if number is None else range(number, number + 1)
            report.begin(f"{name}: {len(numbers):,} inputs")
            crashes += fuzz(name, numbers, seed)
            report.figures[f"inputs_{name}"] = len(numbers)
        report.figures |= _figures(report.figures, crashes)


def fuzz(name: str, numbers: range, seed: int) -> list[Crash]:
    """Run inputs of one target; what went wrong."""

    def prepare(folder: Path) -> Callable[[int], None]:
        attempt = TARGETS[name].prepare(folder)
        return lambda number: attempt(Random(f"{seed} {name} {number}"))

    with tempfile.TemporaryDirectory() as made:
        return list(run_inputs(name, numbers, Path(made).resolve(), prepare))


def _figures(inputs: dict[str, Any], crashes: Sequence[Crash]) -> dict[str, Any]:
    return {
        "fuzz_inputs": sum(inputs.values()),
        "fuzz_crashes": len({(crash.target, crash.number) for crash in crashes}),
        "crashes": [f"{c.target} {c.number}: {c.what}" for c in crashes[:_TOLD]],
    }
