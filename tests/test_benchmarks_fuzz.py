"""The fuzz benchmark in its short form, and that it sees what it looks for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from benchmarks.fuzz import watching
from benchmarks.fuzz.mutations import changed_bytes, changed_json
from benchmarks.fuzz.targets import TARGETS
from vqa_cache.errors import CacheError


def test_no_input_of_the_short_form_harms() -> None:
    line = [sys.executable, "-m", "benchmarks", "fuzz", "--inputs", "150", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["crashes"] == []
    assert found["fuzz_crashes"] == 0
    assert found["fuzz_inputs"] >= 150
    assert {name for name in found if name.startswith("inputs_")} == {
        f"inputs_{name}" for name in TARGETS
    }


def seen(folder: Path, attempt: Callable[[int], None]) -> list[str]:
    """What is told of three inputs, of which the second goes wrong."""
    found = list(watching.run_inputs("t", range(3), folder, lambda _inside: attempt))
    assert {crash.number for crash in found} <= {1}
    return [crash.what for crash in found]


def only_second(act: Callable[[], object]) -> Callable[[int], None]:
    def attempt(number: int) -> None:
        if number == 1:
            act()

    return attempt


def many_lines() -> None:
    raise CacheError("a\nb")


def programs_error() -> None:
    raise KeyError("x")


def users_error() -> None:
    raise CacheError("one line")


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (users_error, None),
        (programs_error, "KeyError at "),
        (many_lines, "a message of several lines: "),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "the process ended with status 9"),
        (lambda: subprocess.run(["true"], check=True), "subprocess.Popen 'true'"),
    ],
)
def test_what_goes_wrong_is_seen(
    tmp_path: Path, act: Callable[[], object], expected: str | None
) -> None:
    found = seen(tmp_path, only_second(act))
    assert bool(found) == (expected is not None)
    assert all(what.startswith(str(expected)) for what in found)


def test_what_takes_too_long_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SECONDS", 0.2)
    [what] = seen(tmp_path, only_second(lambda: time.sleep(60)))
    assert "RuntimeError" in what
    assert "took more than" in what


def test_changes_outside_are_seen(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    inside = tmp_path / "0" / "x"

    def act() -> None:
        inside.write_bytes(b"y")  # may be
        (tmp_path / "new").write_bytes(b"y")
        (tmp_path / "old").rename(tmp_path / "renamed")
        (tmp_path / "link").symlink_to(inside)
        os.rmdir("folder", dir_fd=os.open(tmp_path, os.O_RDONLY))

    found = "\n".join(seen(tmp_path, only_second(act)))
    for name in ("new", "old", "renamed", "link", "folder"):
        assert f"of '{tmp_path / name}', which is outside" in found
    assert str(inside) not in found


def test_inputs_follow_from_their_number_alone() -> None:
    value = {"a": [1, {"b": "c"}], "d": None}
    for number in range(50):
        first, second = Random(f"0 x {number}"), Random(f"0 x {number}")
        assert changed_bytes(first, b"abc" * 50, [b"z"]) == changed_bytes(
            second, b"abc" * 50, [b"z"]
        )
        assert changed_json(first, value) == changed_json(second, value)
    assert value == {"a": [1, {"b": "c"}], "d": None}
