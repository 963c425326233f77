"""Every command of docs/runs.md, as it is typed, in its order."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from documents import blocks, typed

LINES = [line for block in blocks("sh", "runs.md") for line in block.lines]


def test_the_tutorial_runs_as_it_is_typed(
    documented: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))  # for what `work` starts
    printed = {line: typed(line).stdout for line in LINES}
    assert len(printed) == len(LINES) > 15

    def of(text: str) -> str:
        [found] = [line for line in LINES if text in line]
        return printed[found]

    assert of("head.name=cosine --sort").count("cosine_answers-") == 1
    assert of("optimizer.lr=1e-4:1e-2").count("finished") == 2
    assert "95% interval" in of("compare")
    assert re.search(r"^6 snapshots evaluated$", of("validate --pending"), re.MULTILINE)
    assert of("runs work").count("done, run: ") == 2
    assert "8 folders" in of("clean --older-than 2w --yes")
    assert of("GROUP BY status").split() == ["status", "n", "finished", "4"]
    assert of("rebuild").splitlines() == ["4 runs", "0 sweeps"]
    with (documented / "runs.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
    [block] = blocks("python", "runs.md")
    exec(compile(block.text, "docs/runs.md", "exec"), {})
    assert capsys.readouterr().out.count("cosine_answers-") == 2


def test_every_command_is_in_the_tutorial() -> None:
    from train.runs.__main__ import command

    typed_words = {word for line in LINES for word in line.split()}
    assert set(command.commands) <= typed_words
