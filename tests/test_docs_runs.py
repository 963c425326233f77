"""Every command of docs/runs.md, as it is typed, in its order."""

from __future__ import annotations

import csv
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import test_train_small_cache as small
from click.testing import CliRunner

from train.config.files import load_experiment

TUTORIAL = (Path(__file__).parent.parent / "docs" / "runs.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TUTORIAL, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a small cache that the shipped experiments find their tables in."""
    features = load_experiment("mlp_answers").config.features
    monkeypatch.setattr(small, "IMAGE", features.image)
    monkeypatch.setattr(small, "TEXT", features.text)
    small.build_cache(tmp_path / "cache", small.small_dataset(), name=features.dataset)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))  # for what `work` starts
    return tmp_path


def typed(line: str) -> str:
    """Run a line of the tutorial in this process; what it printed."""
    python, flag, module, *arguments = shlex.split(line)
    assert (python, flag) == ("python", "-m")
    command: Any = importlib.import_module(f"{module}.__main__").command
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, f"{line}: {done.output}"
    return done.stdout


def test_the_tutorial_runs_as_it_is_typed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    printed = {line: typed(line) for line in lines}
    assert len(printed) == len(lines) > 15

    def of(text: str) -> str:
        [found] = [line for line in lines if text in line]
        return printed[found]

    assert of("head.name=cosine --sort").count("cosine_answers-") == 1
    assert of("optimizer.lr=1e-4:1e-2").count("finished") == 2
    assert "95% interval" in of("compare")
    assert re.search(r"^6 snapshots evaluated$", of("validate --pending"), re.MULTILINE)
    assert of("runs work").count("done, run: ") == 2
    assert "8 folders" in of("clean --older-than 2w --yes")
    assert of("GROUP BY status").split() == ["status", "n", "finished", "4"]
    assert of("rebuild").splitlines() == ["4 runs", "0 sweeps"]
    with (folder / "runs.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
    [block] = blocks("python")
    exec(compile(block, "docs/runs.md", "exec"), {})
    assert capsys.readouterr().out.count("cosine_answers-") == 2


def test_every_command_is_in_the_tutorial() -> None:
    from train.runs.__main__ import command

    typed_words = {word for block in blocks("sh") for word in block.split()}
    assert set(command.commands) <= typed_words
