"""Every command begins and ends alike: `-h`, one line an error, exit codes."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner

from data.example import DatasetError
from precompute.errors import EncoderError
from train.errors import ConfigError
from vqa_cache.errors import DamagedError
from vqa_cache.system.commands import Command, Group
from vqa_cache.system.signals import Stopped

COMMANDS = {
    "data": "data.__main__:main",
    "precompute": "precompute.__main__:main",
    "precompute.taps": "precompute.taps:main",
    "vqa_cache": "vqa_cache.__main__:main",
    "train": "train.__main__:command",
    "train.lr_find": "train.lr_find:command",
    "train.ridge": "train.ridge.command:command",
    "train.runs": "train.runs.__main__:command",
    "train.sweep": "train.sweep.__main__:command",
    "benchmarks": "benchmarks.__main__:main",
}


def named(name: str) -> click.Command:
    module, _, attribute = COMMANDS[name].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_a_short_name_everywhere(name: str) -> None:
    command = named(name)
    short, long = (CliRunner().invoke(command, [option]) for option in ("-h", "--help"))
    assert short.exit_code == 0
    assert short.output == long.output
    assert "Usage:" in short.output


@pytest.mark.parametrize("group", ["data", "vqa_cache", "train.runs"])
def test_help_has_a_short_name_below_a_group(group: str) -> None:
    command = named(group)
    assert isinstance(command, click.Group)
    for below in command.list_commands(click.Context(command)):
        assert CliRunner().invoke(command, [below, "-h"]).exit_code == 0, below


def failing(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (DamagedError("shard 1: cut off"), 1, "error: shard 1: cut off\n"),
        (EncoderError("no model"), 1, "error: no model\n"),
        (DatasetError("no folder"), 1, "error: no folder\n"),
        (ConfigError(["a = 1: no", "b = 2: no"]), 1, "error: a = 1: no\nerror: b = 2: no\n"),
        (OSError(28, "No space left", "x"), 1, "error: x: No space left; rows are kept\n"),
        (OSError("truncated file\nmore"), 1, "error: truncated file; rows are kept\n"),
        (MemoryError(), 1, "error: memory ended; rows are kept\n"),
        (
            RuntimeError("can't start new thread"),
            1,
            "error: memory ended (can't start new thread); rows are kept\n",
        ),
        (Stopped("stopped by a signal"), 128 + signal.SIGTERM, "stopped by a signal; goes on\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_end_in_one_line_each_and_an_exit_code(
    error: Exception, code: int, told: str
) -> None:
    settings = {"errors": (DatasetError,), "kept": "rows are kept", "stopped": "goes on"}
    single = Command("single", callback=failing(error), **settings)
    group = Group("group", commands=[click.Command("below", callback=failing(error))], **settings)
    for command, arguments in ((single, []), (group, ["below"])):
        done = CliRunner().invoke(command, arguments)
        assert (done.exit_code, done.stderr, done.stdout) == (code, told, "")


def test_a_fault_of_the_program_is_not_taken_for_the_users() -> None:
    done = CliRunner().invoke(Command("x", callback=failing(ZeroDivisionError("here"))), [])
    assert isinstance(done.exception, ZeroDivisionError)
