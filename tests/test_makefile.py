"""The Makefile: a Python that is too old is told before anything is installed, and everything is
installed once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OLD = """#!/bin/sh
[ "$1" = --version ] && echo "Python 3.10.4" && exit
[ "$1" = -c ] || { echo "$@" >> "$(dirname "$0")/ran"; exit 1; }
exec '{python}' -c "import sys; sys.version_info = (3, 10, 4); exec(sys.argv[1])" "$2"
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that `make setup` reads, with an interpreter that says that it is Python 3.10."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    write_old(tmp_path / "python3.10")
    return tmp_path


def write_old(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(OLD.replace("{python}", sys.executable))
    path.chmod(0o755)


def setup(clone: Path, python: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "setup", f"PYTHON={python}"], cwd=clone, capture_output=True, text=True, timeout=60
    )


def test_an_old_python_is_named_before_anything_is_made(clone: Path) -> None:
    done = setup(clone, "./python3.10")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        "error: ./python3.10 is Python 3.10.4, expected Python 3.11 or newer: "
        "make setup PYTHON=<a newer one>"
    )
    assert not (clone / ".venv").exists()
    assert not (clone / "ran").exists()


@pytest.mark.parametrize("broken", [False, True], ids=["old", "broken"])
def test_an_environment_that_cannot_serve_is_told_with_what_to_delete(
    clone: Path, broken: bool
) -> None:
    interpreter = clone / ".venv/bin/python"
    write_old(interpreter)
    if broken:
        interpreter.unlink()
        interpreter.symlink_to(clone / "removed")
    done = setup(clone, sys.executable)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        "error: .venv was made with an older Python than 3.11, or is broken; delete it and try "
        "again: rm -r .venv"
    )
    assert not (interpreter.parent / "ran").exists()


PYTHON = """#!/bin/sh
case "$1 $2" in
"-c "*) exit ;;
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
*) echo "$@" >> "{ran}" ;;
esac
"""
PIP = "-m pip install --disable-pip-version-check --no-compile -c constraints.txt -e "
TESTS = "-m pytest -n 2 --dist loadscope"
WARM = "-m precompute.taps "
STAGES = ["-m train --check cosine_answers", "-m precompute --for cosine_answers"]


@pytest.fixture
def ran(clone: Path) -> Path:
    """What the interpreter `./python` of the clone, and that of its .venv, were asked to run."""
    (clone / "python").write_text(PYTHON.format(ran=clone / "ran"))
    (clone / "python").chmod(0o755)
    return clone / "ran"


def asked(ran: Path) -> list[str]:
    """What was run, but for the two encoders that each installation loads beside each other."""
    lines = [" ".join(line.split()) for line in ran.read_text().splitlines()]
    rest = [line for line in lines if not line.startswith(WARM)]
    assert len(lines) - len(rest) == 2 * sum(line.startswith(PIP) for line in rest)
    return rest


def make(clone: Path, *goals: str) -> None:
    command = ["make", *goals, "PYTHON=./python"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_tests_asked_first_install_in_one_run_what_training_uses_too(
    clone: Path, ran: Path
) -> None:
    make(clone, "test")
    make(clone, "train", "setup", "test")
    assert asked(ran) == [f"{PIP}.[dev]", TESTS, *STAGES, "-m train cosine_answers", TESTS]


def test_tests_asked_after_training_add_to_its_environment(clone: Path, ran: Path) -> None:
    make(clone, "-j2", "setup", "test")
    assert asked(ran) == [f"{PIP}.", f"{PIP}.[dev]", TESTS]
    ran.unlink()
    (clone / "pyproject.toml").touch()
    make(clone, "test")
    assert asked(ran) == [f"{PIP}.[dev]", TESTS]


@pytest.mark.parametrize(
    ("goal", "arguments", "said"),
    [
        ("train", "head.dropout=1.5", "head.dropout"),
        ("sweep", "head.dropout=0.1,1.5", "head.dropout"),
    ],
)
def test_what_is_wrong_with_an_experiment_is_told_before_stage_1(
    tmp_path: Path, goal: str, arguments: str, said: str
) -> None:
    """Stage 1 would encode for minutes first."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "constraints.txt").touch()
    interpreter = tmp_path / ".venv/bin/python"
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text(f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n")
    interpreter.chmod(0o755)
    (tmp_path / ".venv/.installed").touch()
    done = subprocess.run(
        ["make", goal, "EXP=mlp_answers", f"ARGS={arguments}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[0]
    assert "precompute" not in done.stdout
    assert not (tmp_path / "cache").exists()
