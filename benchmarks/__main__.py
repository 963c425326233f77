"""`python -m benchmarks NAME [--json]` runs one benchmark."""

from __future__ import annotations

import importlib
import sys

import click

# name -> "module:command"; a command takes its own options
BENCHMARKS: dict[str, str] = {
    "cached_vs_uncached": "benchmarks.cached_vs_uncached:command",
    "flat": "benchmarks.flat:command",
    "gpu": "benchmarks.gpu:command",
    "make_scale_cache": "benchmarks.inputs.scale_cache:command",
    "precompute": "benchmarks.precompute.command:command",
    "registry": "benchmarks.registry:main",
    "resume": "benchmarks.resume.command:command",
    "sweep": "benchmarks.sweep:command",
    "train": "benchmarks.train.command:command",
}


class Benchmarks(click.Group):
    """Imports a benchmark only when it is asked for: each needs other libraries."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(BENCHMARKS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in BENCHMARKS:
            return None
        module, _, name = BENCHMARKS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.command(cls=Benchmarks)
def main() -> None:
    """Measure. Every figure compares things that alternate in one run; --json prints one object."""


if __name__ == "__main__":
    sys.exit(main())
