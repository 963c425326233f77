"""What the machine refuses: a full disk, a read-only one, one that fails; memory and file handles
that run out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.faults.ground import Ground
from benchmarks.faults.scenario import CACHE, Finding, Scenario, wrong_rows
from benchmarks.measuring.warm import Finished

_ERRORS = ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EIO", "EMFILE", "ENFILE", "ENOMEM")
_LIMITS: tuple[dict[str, Any], ...] = (
    {"file_limit": 3_000},
    {"file_limit": 60_000},
    {"file_handles": 12},
    {"file_handles": 24},
    {"memory": 4 << 20},
    {"memory": 64 << 20},
)


@dataclass(frozen=True)
class Failure:
    """What the machine refuses in one run.

    Attributes:
        how: of `Warm.start`.
    """

    scenario: Scenario
    how: dict[str, Any]

    @property
    def what(self) -> str:
        """For people."""
        if "errno" not in self.how:
            return ", ".join(f"{key} {value}" for key, value in self.how.items())
        often = " from then on" if self.how["calls"] == "writes" else ""
        return f"{self.how['errno']} at operation {self.how['fail_at']}{often}"


def schedule(scenarios: Sequence[Scenario], count: int, draw: random.Random) -> list[Failure]:
    """So many failures, of every kind in turn."""
    kinds: list[dict[str, Any]] = [
        {"errno": name, "calls": calls} for name in _ERRORS for calls in ("writes", "one")
    ]
    kinds += _LIMITS
    planned = []
    for number in range(count):
        scenario, how = draw.choice(scenarios), dict(kinds[number % len(kinds)])
        if "errno" in how:
            how["fail_at"] = draw.randrange(len(scenario.operations))
        planned.append(Failure(scenario, how))
    return planned


def fail(ground: Ground, one: Failure) -> list[Finding]:
    """Let the work fail, see what it says and what a reader is served, give it again, compare."""
    scenario = one.scenario
    with scenario.begun(ground.folder) as place:
        done = scenario.run(ground.warm, place, **one.how)
        where = f"{scenario.name}, {one.what}"
        findings = _told(done, where)
        if not scenario.mends:
            findings += wrong_rows(place / CACHE, ground.right, scenario.steady, where)
        return findings + scenario.complete(ground.warm, place, one.what)


def _told(done: Finished, where: str) -> list[Finding]:
    """One line and exit code 1, or the end of the work in spite of it."""
    if done.status == 0:
        return []
    lines = done.stderr.strip().splitlines()
    if (
        done.status == 1
        and "Traceback" not in done.stderr
        and lines[-1:]
        and (lines[-1].startswith("error: "))
    ):
        return []
    what = f"{where}: exit code {done.status}: {(lines or ['nothing'])[-1]}"
    return [Finding("told_badly", what)]
