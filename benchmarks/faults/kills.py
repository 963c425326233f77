"""SIGKILL at random moments and at every operation on files."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.faults.ground import Ground
from benchmarks.faults.scenario import CACHE, Finding, Scenario, kept, wrong_rows

_EACH = 5  # kills at least of every kind of operation


@dataclass(frozen=True)
class Kill:
    """One kill to be.

    Attributes:
        at: the call at which to die; None: at a random moment.
        moment: 0 to 1, of the time that the undisturbed work takes.
    """

    scenario: Scenario
    at: int | None
    moment: float


@dataclass(frozen=True)
class Killed:
    """What a kill did.

    Attributes:
        counted: whether it fell before the last commit.
        operation: the kind of the call that it hit; empty at a random moment.
    """

    counted: bool
    operation: str
    findings: list[Finding] = field(default_factory=list)


def schedule(scenarios: Sequence[Scenario], kills: int, draw: random.Random) -> list[Kill]:
    """So many kills: every kind of operation `_EACH` times, then every operation in turn as long as
    two thirds last, then random moments."""
    places = _places(scenarios)
    chosen: list[tuple[Scenario, int]] = []
    for found in places.values():
        draw.shuffle(found)
        chosen += (found * _EACH)[:_EACH]
    rest = [one for found in places.values() for one in found[_EACH:]]
    draw.shuffle(rest)
    chosen += rest[: max(0, kills * 2 // 3 - len(chosen))]
    planned = [Kill(scenario, number, 0.0) for scenario, number in chosen]
    while len(planned) < kills:
        planned.append(Kill(draw.choice(scenarios), None, draw.random()))
    draw.shuffle(planned)
    return planned[:kills]  # few: not every kind


def hit_too_seldom(
    scenarios: Sequence[Scenario], killed: Sequence[Killed], draw: random.Random
) -> list[Kill]:
    """Kills for those operations that fewer than `_EACH` counted ones hit: some fall behind the
    last commit, and threads change places."""
    places, planned = _places(scenarios), []
    for operation, count in operation_counts(killed).items():
        planned += [
            Kill(*draw.choice(places[operation]), 0.0)
            for _ in range(_EACH - count)
            if operation in places
        ]
    return planned


def _places(scenarios: Sequence[Scenario]) -> dict[str, list[tuple[Scenario, int]]]:
    """Kind of operation -> where it is."""
    places: dict[str, list[tuple[Scenario, int]]] = {}
    for scenario in scenarios:
        for number, operation in enumerate(scenario.operations):
            places.setdefault(operation, []).append((scenario, number))
    return places


def kill(ground: Ground, one: Kill) -> Killed:
    """Kill the work, look at what a reader is served, give the command again, compare."""
    scenario = one.scenario
    with scenario.begun(ground.folder) as place:
        cache = place / CACHE
        if one.at is not None:
            done = scenario.run(ground.warm, place, kill_at=one.at)
            hit = done.operations[-1] if done.operations else ""
            fault = f"killed at operation {one.at} ({hit})"
        else:
            started = ground.warm.start(
                *scenario.words(place), module=scenario.module, **scenario.how
            )
            time.sleep(one.moment * scenario.seconds)
            started.kill()
            done, hit = started.wait(), ""
            fault = f"killed after {one.moment:.2f} of its time"
        if done.status != -signal.SIGKILL or kept(cache) == scenario.files:
            return Killed(False, hit)  # it had committed everything
        findings = []
        if not scenario.mends:
            where = f"{scenario.name}, {fault}"
            findings = wrong_rows(cache, ground.right, scenario.steady, where)
        return Killed(True, hit, findings + scenario.complete(ground.warm, place, fault))


def operation_counts(killed: Iterator[Killed] | Sequence[Killed]) -> Counter[str]:
    """How often each kind of operation was hit."""
    return Counter(one.operation for one in killed if one.counted and one.operation)
