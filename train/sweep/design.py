"""`python -m train.sweep EXP [EXP] --design DIFFERENCE`: can a comparison tell that difference?"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from train.errors import TrainError
from train.metrics.design import FOUND, Pilot, pilot_of_pairs, pilot_of_seeds
from train.runs.comparison import answered_by, find_group
from train.runs.registry import open_registry
from train.runs.tabular import print_rows

SEEDS = (2, 3, 5, 8, 12, 20)


def design(
    names: tuple[str, ...], difference: float, seeds: int, *, cache: Path, runs: Path
) -> dict[str, Any]:
    """What a comparison of so many seeds on the pilot's questions tells, and what others would.

    Args:
        names: one experiment or two, of which finished runs differ in seed alone.

    Raises:
        TrainError: there are too few runs to plan from; the text names the command that helps.
    """
    if len(names) > 2:
        raise TrainError(f"--design: found {len(names)} experiments; expected one, or two to tell")
    with closing(open_registry(runs)) as registry:
        groups = [[runs / run for run in find_group(registry, name)] for name in names]
    for name, group in zip(names, groups, strict=True):
        if len(group) < 2:
            raise TrainError(
                f"--design: {name} has {len(group)} finished run; expected 2 at least that differ "
                f"in seed alone: python -m train {name} --seeds 3"
            )
    both = answered_by(groups[0], groups[-1], cache)
    if sorted(both.seeds_a) != sorted(both.seeds_b):
        raise TrainError(
            f"--design: seeds {both.seeds_a} of {names[0]} and {both.seeds_b} of {names[-1]}; "
            "expected the same, which are judged in pairs"
        )
    if len(groups) == 1:
        pilot = pilot_of_seeds(both.a, both.image)
    else:
        pilot = pilot_of_pairs(both.b - both.a, both.image)
    if not pilot.detectable(pilot.n, seeds):
        raise TrainError(
            f"--design: all {len(groups[0])} seeds of {names[0]} answered {both.split} alike, so "
            "nothing is known of how they vary; expected runs that differ: more seeds or epochs"
        )
    return {
        "experiments": list(names),
        "split": both.split,
        "difference": difference,
        "seeds": seeds,
        "n": pilot.n,
        "images": pilot.images,
        "detectable": pilot.detectable(pilot.n, seeds),
        "decides": pilot.detectable(pilot.n, seeds) <= difference,
        "needed": [_needed(pilot, difference, count) for count in sorted({*SEEDS, seeds})],
    }


def _needed(pilot: Pilot, difference: float, seeds: int) -> dict[str, int | None]:
    questions = pilot.needed(difference, seeds)
    images = None if questions is None else max(2, round(questions * pilot.images / pilot.n))
    return {"seeds": seeds, "questions": questions, "images": images}


def print_design(found: dict[str, Any]) -> None:
    """The same as a person reads it."""
    one = len(found["experiments"]) == 1
    what = "a setting and another" if one else " and ".join(found["experiments"])
    click.echo(
        f"{found['split']}: {found['n']:,} questions of {found['images']:,} images; with "
        f"{found['seeds']} seeds each, {what} are told apart in {FOUND:.0%} of cases where they "
        f"differ by {found['detectable']:.4f}{' at least' if one else ''}"
    )
    if not found["decides"]:
        click.echo(
            f"warning: a difference of {found['difference']:g} cannot be decided there; it takes"
        )
    else:
        click.echo(f"a difference of {found['difference']:g} is decided there; it takes")
    rows = [
        {
            "seeds": row["seeds"],
            "questions": "no number" if row["questions"] is None else f"{row['questions']:,}",
            "images": "-" if row["images"] is None else f"{row['images']:,}",
        }
        for row in found["needed"]
    ]
    print_rows(rows, ["seeds", "questions", "images"])
