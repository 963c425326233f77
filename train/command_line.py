"""What the commands of stage 2 have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vqa_cache.system.allocator import keep_freed_memory
from vqa_cache.system.commands import Command, cache_option, json_option

__all__ = ["TrainingCommand", "cache_option", "json_option", "overrides_argument", "runs_option"]

overrides_argument: Callable[..., Any] = click.argument(
    "overrides", nargs=-1, metavar="[KEY=VALUE]..."
)
runs_option: Callable[..., Any] = click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    help="The folder of all runs.",
)


class TrainingCommand(Command):
    """A command that computes."""

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run the command and end the process."""
        keep_freed_memory()
        return super().main(*args, **settings)
