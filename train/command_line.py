"""What the commands of stage 2 have in common: options, and how they start and fail."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from train.errors import Stopped, TrainError

HELP = {"help_option_names": ["-h", "--help"], "show_default": True}
_FOLDER = click.Path(path_type=Path)

overrides_argument: Callable[..., Any] = click.argument(
    "overrides", nargs=-1, metavar="[KEY=VALUE]..."
)
cache_option: Callable[..., Any] = click.option(
    "--cache", type=_FOLDER, default=Path("cache"), help="The folder of the cache."
)
runs_option: Callable[..., Any] = click.option(
    "--runs", type=_FOLDER, default=Path("runs"), help="The folder of all runs."
)
json_option: Callable[..., Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object."
)


def run_command(
    command: click.Command, name: str, *, stopped: str = "the same command goes on"
) -> None:
    """Run `python -m <name>`; a user's errors go to stderr, one line each, with exit code 1. What
    a signal stopped ends with 143, and with a line that `stopped` ends."""
    from vqa_cache.errors import CacheError
    from vqa_cache.system.allocator import keep_freed_memory
    from vqa_cache.system.signals import EXIT_STOPPED

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
