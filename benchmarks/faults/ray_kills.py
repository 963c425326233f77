"""SIGKILL of the processes that Ray gives shards to, and of the run itself."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

from benchmarks.faults.ground import Ground
from benchmarks.faults.scenario import CACHE, Finding, Scenario, kept, wrong_rows
from benchmarks.inputs.pictures import VIT, write_dataset
from benchmarks.measuring.ray_driver import Driver

_EACH = 10  # kills of one run at most
_SHARDS = 40  # of a run: Ray gives up a shard whose process was lost four times


@dataclass(frozen=True)
class RayKilled:
    """What one run under kills came to."""

    kills: int
    findings: list[Finding] = field(default_factory=list)


def prepared(ground: Ground) -> Scenario:
    """Work on many small shards, with what it comes to undisturbed, on this machine alone."""
    images = 4 * _SHARDS
    data = write_dataset(ground.folder / "many", images=images, train=images, test=0, seed=2)
    work = Scenario("ray", ground.stage_1("--image", VIT, data=data))
    found = work.undisturbed(ground.warm, ground.folder)
    ground.right |= found.rows
    return found


def kill(ground: Ground, scenario: Scenario, kills: int, draw: random.Random) -> RayKilled:
    """Run on Ray, kill processes at random moments, the run itself at last; give the command again
    on this machine, compare.

    Args:
        kills: that are wanted still.
    """
    place = Path(mkdtemp(prefix="ray-", dir=ground.folder))
    cache, counted = place / CACHE, 0
    driver = Driver(*scenario.words(place, "--engine", "ray"))
    try:
        while driver.process.poll() is None and counted < min(kills, _EACH):
            at_work = driver.at_work("encode_shard")
            if at_work:
                time.sleep(draw.uniform(0, 0.3))
                with suppress(ProcessLookupError):
                    os.kill(draw.choice(at_work), signal.SIGKILL)
                    counted += kept(cache) != scenario.files
            time.sleep(0.02)
        if driver.process.poll() is None and kept(cache) != scenario.files:
            driver.process.kill()
            counted += 1
        driver.wait()
        where = f"ray, {counted} kills"
        findings = wrong_rows(cache, ground.right, {}, where)
        return RayKilled(counted, findings + scenario.complete(ground.warm, place, where))
    finally:
        driver.process.kill()
        shutil.rmtree(place, ignore_errors=True)
