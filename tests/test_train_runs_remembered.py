"""A command typed again is answered from what is remembered, as long as nothing has changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_train_small_cache import run_of, write_experiment

from train.runs.remembered import Remembered

OVERRIDES = ["baselines=off"]
ALONE = """
import sys
from train.__main__ import command
try:
    command(sys.argv[1:])
finally:
    assert "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def trained(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache of its own, an experiment that reads a list of answers, and its run."""
    folder = tmp_path_factory.mktemp("remembered")
    shutil.copytree(cache, folder / "cache")
    (folder / "answers.txt").write_text("red\ngreen\nblue\n")
    write_experiment(folder)
    run = run_of(folder, folder / "cache", *OVERRIDES)
    remembered(folder).keep(run)
    return folder


def remembered(folder: Path, *more: str) -> Remembered:
    experiment = str(folder / "tiny_mlp.toml")
    return Remembered(experiment, [*OVERRIDES, *more], folder / "cache", folder / "runs")


def test_the_same_command_and_its_check_need_no_torch(trained: Path) -> None:
    [run] = trained.glob("runs/tiny_mlp-*")
    places = ["--cache", str(trained / "cache"), "--runs", str(trained / "runs")]
    arguments = [str(trained / "tiny_mlp.toml"), *places, *OVERRIDES]
    for more in ([], ["--check"]):
        done = subprocess.run(
            [sys.executable, "-c", ALONE, *arguments, *more], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        if not more:
            assert lines[0] == f"{run.name}: already finished; --new trains it again"
            assert lines[-1] == f"run: {run}"


def add_a_line(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n# more\n")


CHANGES: dict[str, Callable[[Path], object]] = {
    "the experiment": lambda folder: (folder / "tiny_mlp.toml").write_text(
        (folder / "tiny_mlp.toml").read_text().replace("epochs = ", "epochs = 1")
    ),
    "a commit record": lambda folder: add_a_line(next(folder.glob("cache/**/records/*.json"))),
    "a table more": lambda folder: (folder / "cache" / "tables" / "new").write_text(""),
    "the run deleted": lambda folder: shutil.rmtree(next(folder.glob("runs/tiny_mlp-*"))),
    "a run unfinished": lambda folder: next(folder.glob("runs/*/result.json")).unlink(),
    "a damaged memory": lambda folder: (folder / "runs/commands.json").write_text("[1"),
    "no memory": lambda folder: (folder / "runs/commands.json").unlink(),
    "nonsense in it": lambda folder: (folder / "runs/commands.json").write_text(
        json.dumps(dict.fromkeys(json.loads((folder / "runs/commands.json").read_text()), 3))
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_looked_at_again(trained: Path, tmp_path: Path, change: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    [run] = folder.glob("runs/tiny_mlp-*")
    (folder / "runs/commands.json").unlink()
    remembered(folder).keep(run)
    assert remembered(folder).finished() == run
    CHANGES[change](folder)
    assert remembered(folder).finished() is None


def test_other_settings_files_that_are_named_and_code_are_other_commands(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [run] = trained.glob("runs/tiny_mlp-*")
    answers = f"answers.vocabulary={trained / 'answers.txt'}"
    assert remembered(trained, "seed=1").finished() is None
    assert remembered(trained, answers).finished() is None
    remembered(trained, answers).keep(run)  # as if it had led to it
    assert remembered(trained, answers).finished() == run
    os.utime(trained / "answers.txt", (1, 1))
    assert remembered(trained, answers).finished() is None
    monkeypatch.setattr("train.runs.remembered.code_digest", lambda components: "other")
    assert remembered(trained).finished() is None


def test_an_experiment_that_is_not_there_is_nothing_to_remember(tmp_path: Path) -> None:
    none = Remembered("no_such_name", [], tmp_path / "cache", tmp_path)
    none.keep(tmp_path / "run")
    assert none.finished() is None
    assert not (tmp_path / "commands.json").exists()
