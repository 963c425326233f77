"""What all commands have in common: options, how an error ends them, their exit codes.

0 done    1 a user's error, one line each on stderr    2 wrong usage    143 stopped by a signal
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vqa_cache.errors import UserError, is_shortage
from vqa_cache.system.lines import one_line
from vqa_cache.system.signals import EXIT_STOPPED, Stopped

cache_option: Callable[..., Any] = click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=Path("cache"),
    help="The folder of the cache.",
)
json_option: Callable[..., Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object."
)


class _Border(click.Command):
    """The way from an error to stderr and an exit code; `-h` and defaults in every help text.

    Args:
        errors: a user's errors beside `UserError`; each line of their text is one error.
        kept: what a disk that is full, say, leaves behind.
        stopped: what becomes of the work that a signal stopped.
    """

    def __init__(
        self,
        name: str | None,
        *,
        errors: tuple[type[Exception], ...] = (),
        kept: str = "",
        stopped: str = "",
        **settings: Any,
    ) -> None:
        context = {"help_option_names": ["-h", "--help"], "show_default": True}
        super().__init__(name, context_settings=context, **settings)
        self.errors, self.kept, self.stopped = errors, kept, stopped

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run the command and end the process."""
        try:
            return super().main(*args, **settings)
        except Stopped as stopped:
            click.echo("; ".join(filter(None, (str(stopped), self.stopped))), err=True)
            sys.exit(EXIT_STOPPED)
        except MemoryError as error:
            told = f"memory ended ({error})" if str(error) else "memory ended"
            _fail("; ".join(filter(None, (told, self.kept))))
        except OSError as error:  # a disk that is full, a folder that may not be written
            where = f"{error.filename}: " if error.filename else ""
            what = error.strerror or str(error).partition("\n")[0]  # h5py's have no strerror
            _fail("; ".join(filter(None, (where + what, self.kept))))
        except Exception as error:
            if is_shortage(error):
                _fail("; ".join(filter(None, (f"memory ended ({error})", self.kept))))
            if not isinstance(error, (UserError, *self.errors)):
                raise
            _fail(str(error))


def _fail(text: str) -> None:
    for line in text.splitlines() or [""]:
        click.echo(f"error: {one_line(line)}", err=True)
    sys.exit(1)


class Command(_Border):
    """A command of its own."""


class Group(_Border, click.Group):
    """A command with commands below it, whose errors end here, too."""

    command_class = Command
    group_class = type
