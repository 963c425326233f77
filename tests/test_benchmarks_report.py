"""What a benchmark says on the way, and when it fails or is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks.measuring.processes import run_python
from benchmarks.measuring.report import json_option, reported

ROOT = Path(__file__).parent.parent


@click.command()
@click.option("--error")
@json_option
def command(error: str | None, as_json: bool) -> None:
    """Measures two things, the second of which may fail."""
    with reported(as_json=as_json) as report:
        report.begin("the first")
        report.figures["one"] = 1
        report.begin("the second")
        if error == "told":
            raise click.ClickException("no data")
        if error == "unexpected":
            raise KeyError("two")
        report.figures["two"] = [2, 3]


def test_figures_on_stdout_and_what_is_measured_on_stderr() -> None:
    done = CliRunner().invoke(command, [])
    assert (done.exit_code, done.stdout) == (0, "one: 1\ntwo: [2, 3]\n")
    assert [line.split("s  ")[1] for line in done.stderr.splitlines()] == [
        "the first",
        "the second",
    ]
    done = CliRunner().invoke(command, ["--json"])
    assert json.loads(done.stdout) == {"one": 1, "two": [2, 3]}


@pytest.mark.parametrize(
    ("error", "line"),
    [("told", "the second: no data"), ("unexpected", "the second: KeyError: 'two'")],
)
def test_a_failure_is_the_last_line_and_figures_until_then_are_printed(
    error: str, line: str
) -> None:
    done = CliRunner().invoke(command, ["--json", "--error", error])
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {"one": 1, "incomplete": line}
    assert done.stderr.splitlines()[-1] == f"error: {line}"
    assert ("Traceback" in done.stderr) == (error == "unexpected"), "it says where it comes from"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_with_143_and_the_figures_until_then(number: signal.Signals) -> None:
    code = (
        "import json, time; from benchmarks.measuring.report import reported\n"
        "with reported(as_json=True) as report:\n"
        "    report.figures['one'] = 1; report.begin('sleep'); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().endswith("s  sleep\n")
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 143
    line = f"sleep: stopped by {number.name}"
    assert json.loads(out) == {"one": 1, "incomplete": line}
    assert err == f"error: {line}\n"


def test_a_process_that_fails_is_named() -> None:
    assert run_python("-c", "print(7)") == "7\n"
    with pytest.raises(click.ClickException, match=r"^python -c ended with exit code 3$"):
        run_python("-c", "raise SystemExit(3)\nmore")
    kill = "import os; os.kill(os.getpid(), 9)"
    with pytest.raises(click.ClickException, match=r"was killed by SIGKILL$"):
        run_python("-c", kill)
