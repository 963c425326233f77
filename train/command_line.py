"""How the commands of stage 2 start and fail."""

from __future__ import annotations

import sys

import click

from train.errors import Stopped, TrainError


def run_command(
    command: click.Command, name: str, *, stopped: str = "the same command goes on"
) -> None:
    """Run `python -m <name>`; a user's errors go to stderr, one line each, with exit code 1. What
    a signal stopped ends with 143, and with a line that `stopped` ends."""
    from vqa_cache.allocator import keep_freed_memory
    from vqa_cache.errors import CacheError
    from vqa_cache.signals import EXIT_STOPPED

    keep_freed_memory()
    try:
        command(prog_name=f"python -m {name}")
    except (TrainError, CacheError) as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        sys.exit(1)
    except Stopped as told:
        click.echo(f"{told}; {stopped}", err=True)
        sys.exit(EXIT_STOPPED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {where}{error.strerror or error}; what was saved is kept", err=True)
        sys.exit(1)
