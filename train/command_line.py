"""How the commands of stage 2 start and fail."""

from __future__ import annotations

import sys

import click

from train.errors import TrainError


def run_command(command: click.Command, name: str) -> None:
    """Run `python -m <name>`; a user's errors go to stderr, one line each, with exit code 1."""
    from vqa_cache.allocator import keep_freed_memory
    from vqa_cache.errors import CacheError

    keep_freed_memory()
    try:
        command(prog_name=f"python -m {name}")
    except (TrainError, CacheError) as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        sys.exit(1)
