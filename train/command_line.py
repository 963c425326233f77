"""What the commands of stage 2 have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from train.components.user_code import users_error
from vqa_cache.system.allocator import keep_freed_memory
from vqa_cache.system.commands import Command, cache_option, json_option

__all__ = [
    "TrainingCommand",
    "answering_options",
    "cache_option",
    "json_option",
    "overrides_argument",
    "runs_option",
]

overrides_argument: Callable[..., Any] = click.argument(
    "overrides", nargs=-1, metavar="[KEY=VALUE]..."
)
runs_option: Callable[..., Any] = click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    help="The folder of all runs.",
)


def answering_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--answers` and `--confidence` of the commands that answer questions."""
    answers = click.option(
        "--answers",
        type=click.Path(path_type=Path),
        help="Choose among the answers of this file, one a line (heads that compare answers' "
        "vectors).",
    )
    confidence = click.option(
        "--confidence",
        type=click.FloatRange(0, 1),
        default=0.0,
        help="Below this probability the answer is that it does not know.",
    )
    return answers(confidence(command))


class TrainingCommand(Command):
    """A command that computes. What goes wrong in a user's own head, say, is a user's error."""

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run the command and end the process."""
        keep_freed_memory()
        return super().main(*args, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        """Run what the command does."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if told := users_error(error):
                raise told from error
            raise
