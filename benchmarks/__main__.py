"""`python -m benchmarks NAME [--json]` runs one benchmark."""

from __future__ import annotations

import faulthandler
import importlib
import sys
from typing import NamedTuple

import click

from vqa_cache.system.commands import Group


class Benchmark(NamedTuple):
    """One benchmark.

    Attributes:
        command: "module:command", imported only when it runs, since each needs other libraries.
        about: what it measures, in a line.
        lasts: how long, on two cores.
    """

    command: str
    about: str
    lasts: str


BENCHMARKS: dict[str, Benchmark] = {
    "attention": Benchmark(
        "benchmarks.attention:command",
        "Heads that look at a grid: batches by image against a full shuffle and their limit.",
        "minutes; --only takes a head",
    ),
    "cached_vs_uncached": Benchmark(
        "benchmarks.cached_vs_uncached:command",
        "Training over the cache against training with the encoders in every step.",
        "minutes",
    ),
    "coverage": Benchmark(
        "benchmarks.coverage:command",
        "Whether the 95 % intervals of accuracy, differences and visual gain hold, simulated.",
        "minutes; --repetitions 200: seconds",
    ),
    "faults": Benchmark(
        "benchmarks.faults.command:command",
        "Stage 1 and its caches under kills, power losses, damage and several writers.",
        "25 minutes; --share takes a part",
    ),
    "fewer": Benchmark(
        "benchmarks.fewer:command",
        "What is gained by multiplying each distinct row of a batch once; narrower rows; lanes.",
        "15 minutes; --only takes a part",
    ),
    "flat": Benchmark(
        "benchmarks.flat:command",
        "Training from a table larger than memory: time, memory, accuracy.",
        "minutes, 8 GB of disk",
    ),
    "fuzz": Benchmark(
        "benchmarks.fuzz.command:command",
        "Broken and hostile records, files, imports and pictures: no crash, nothing outside.",
        "tens of minutes; --inputs 1000: one",
    ),
    "gpu": Benchmark(
        "benchmarks.gpu:command",
        "Stage 2 on one GPU against its floor, and a sweep. Without a GPU: says so.",
        "minutes on a GPU",
    ),
    "gpu_encoders": Benchmark(
        "benchmarks.gpu_encoders:command",
        "Stage 1 on one GPU: two ViTs beside their forward passes. Without a GPU: says so.",
        "minutes on a GPU",
    ),
    "ingestion": Benchmark(
        "benchmarks.ingestion:command",
        "Reading examples of VQA v2's size from its official files; data check over them.",
        "minutes; --share 0.05: seconds",
    ),
    "make_scale_cache": Benchmark(
        "benchmarks.make_scale_cache:command",
        "Write a cache of VQA v2's size, or a share of it.",
        "at most two minutes",
    ),
    "open_vocabulary": Benchmark(
        "benchmarks.open_vocabulary:command",
        "Answers that no training has seen, by their texts: a cosine head on shapes.",
        "minutes",
    ),
    "phenomena": Benchmark(
        "benchmarks.phenomena.command:command",
        "What published journals found, found again on shapes; what fails a cosine head.",
        "20 minutes; --only takes a part",
    ),
    "precompute": Benchmark(
        "benchmarks.precompute.command:command",
        "Stage 1 against hand-written loops, sentence-transformers and its floor; kills, memory.",
        "tens of minutes; --small: one",
    ),
    "registry": Benchmark(
        "benchmarks.registry:command",
        "The run registry with 30,000 runs, and with four writers at once.",
        "minutes; --small: seconds",
    ),
    "resume": Benchmark(
        "benchmarks.resume.command:command",
        "Kill and stop trainings and sweeps, go on, count what differs.",
        "tens of minutes; fewer --kills: less",
    ),
    "sweep": Benchmark(
        "benchmarks.sweep:command",
        "A sweep of 32 trials against a process for each trial.",
        "minutes",
    ),
    "systems": Benchmark(
        "benchmarks.systems:command",
        "Every published system through both stages on shapes, one epoch; their parameters.",
        "tens of minutes; --only takes one",
    ),
    "taps": Benchmark(
        "benchmarks.taps:command",
        "Four taps of an encoder in one pass, against the deepest alone; bytes, kills, Ray.",
        "minutes; --only takes a model",
    ),
    "train": Benchmark(
        "benchmarks.train.command:command",
        "Stage 2's steps against their limits and hand-written loops; then flat and sweep.",
        "tens of minutes; --only takes a part",
    ),
}


class Benchmarks(Group):
    """Lists benchmarks without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(BENCHMARKS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in BENCHMARKS:
            ctx.fail(f"no benchmark {cmd_name!r}; known: {', '.join(BENCHMARKS)}")
        module, _, name = BENCHMARKS[cmd_name].command.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Benchmarks, and how long each takes on two cores"):
            formatter.write_dl(
                [(name, f"{one.about} [{one.lasts}]") for name, one in BENCHMARKS.items()]
            )


@click.command(cls=Benchmarks)
def main() -> None:
    """Measure. Every figure compares things that alternate in one run; stdout gets the figures,
    with --json as one object, and stderr a line when something else is measured. What fails or is
    stopped on the way prints the figures until then. NAME --help explains the figures."""


if __name__ == "__main__":
    faulthandler.enable()  # a crash in native code says where
    sys.exit(main())
