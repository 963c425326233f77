"""Several writers of one cache at once, in namespaces of their own too, one of them killed, a
reader open all the while."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

from benchmarks.faults.ground import Ground
from benchmarks.faults.scenario import CACHE, Finding, Scenario, rows_of, wrong_rows
from benchmarks.measuring.warm import Started

MOST_WRITERS = 4
TOGETHER = ("plain", "zarr", "ragged", "extend", "retry", "copy", "convert")  # any number may do it
_ENDED_WELL = (0, -9)


@dataclass(frozen=True)
class Round:
    """One round to be.

    Attributes:
        writers: what each does on its way, of `Warm.start`.
        killed: seconds after which the first writer is killed; None: not at all.
        namespaces: whether each writer has process numbers of its own.
    """

    scenario: Scenario
    writers: tuple[dict[str, Any], ...]
    killed: float | None
    namespaces: bool


@dataclass(frozen=True)
class Met:
    """What came of a round."""

    reads: int
    findings: list[Finding] = field(default_factory=list)


def schedule(
    scenarios: Sequence[Scenario], rounds: int, draw: random.Random, *, namespaces: int
) -> list[Round]:
    """So many rounds, some of them in namespaces. Half of the writers wait a while before one of
    their operations, so that others overtake them there."""
    planned = []
    for number in range(rounds):
        scenario = draw.choice([one for one in scenarios if one.name in TOGETHER])
        writers: list[dict[str, Any]] = []
        for _ in range(draw.randint(2, MOST_WRITERS)):
            waits: dict[str, Any] = {}
            if draw.random() < 0.5:
                waits = {
                    "pause_at": draw.randrange(len(scenario.operations)),
                    "seconds": draw.uniform(0.5, 1.5) * scenario.seconds,
                }
            writers.append(waits)
        killed = draw.uniform(0.2, 2.0) * scenario.seconds if draw.random() < 0.5 else None
        planned.append(Round(scenario, tuple(writers), killed, number < namespaces))
    draw.shuffle(planned)
    return planned


def write_together(ground: Ground, one: Round) -> Met:
    """Let the writers work, read all the while, give the command once more, compare."""
    scenario = one.scenario
    told = [f"waits at {how['pause_at']}" if how else "runs" for how in one.writers]
    own = ", in namespaces" if one.namespaces else ""
    fault = f"{len(told)} writers ({', '.join(told)}{', one killed' if one.killed else ''}){own}"
    with scenario.begun(ground.folder) as place:
        more = {"own_processes": True} if one.namespaces else {}
        started = [
            ground.warm.start(
                *scenario.words(place), module=scenario.module, **scenario.how, **more,
                **({"watch": str(place), **how} if how else {}),
            )
            for how in one.writers
        ]  # fmt: skip
        reader = Reader(ground, scenario, place / CACHE, f"{scenario.name}, {fault}")
        with reader:
            if one.killed is not None:
                time.sleep(one.killed)
                started[0].kill()
            findings = [
                finding
                for number, writer in enumerate(started)
                for finding in _ended(writer, f"{scenario.name}, {fault}: writer {number}")
            ]
        findings += reader.findings[:1] + scenario.complete(ground.warm, place, fault)
        return Met(reader.reads, findings)


def _ended(writer: Started, who: str) -> list[Finding]:
    done = writer.wait(seconds=120)
    if done.status in _ENDED_WELL:
        return []
    told = (done.stderr.strip().splitlines() or ["nothing"])[-1]
    return [Finding("writer_failed", f"{who}: exit code {done.status}: {told}")]


class Reader:
    """Opens the cache again and again; what it is served never shrinks and is never wrong.

    Attributes:
        reads: how often it read.
    """

    def __init__(self, ground: Ground, scenario: Scenario, cache: Path, where: str) -> None:
        self.reads = 0
        self.findings: list[Finding] = []
        self._ground, self._cache, self._where = ground, cache, where
        self._served = dict(scenario.steady)
        self._over = Event()
        self._thread = Thread(target=self._read)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._over.is_set():
            if (self._cache / "CACHE.json").exists():
                where = f"{self._where}: while they write"
                found = wrong_rows(self._cache, self._ground.right, self._served, where)
                self.findings += found
                if not found:
                    self._served = rows_of(self._cache)
                self.reads += 1
            self._over.wait(0.02)
