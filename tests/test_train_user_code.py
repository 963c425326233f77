"""A mistake in a user's own head is told by their own lines, and fails the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from test_train_small_cache import write_experiment

from train.__main__ import command
from train.components.lookup import find_factory
from train.components.user_code import UserCodeError

HEAD = """import torch
from torch import nn


class Own(nn.Module):
    def __init__(self, in_features: int, num_answers: int, *, wide: int = 3) -> None:
        super().__init__()
        self.line = nn.Linear(in_features, {size})

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        return self.line({inputs})
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import torch\nimport no_such_thing\n", [
            "own.py:2 in <module>: import no_such_thing",
            "ModuleNotFoundError: No module named 'no_such_thing'",
        ]),
        ("class Own(\n", ["SyntaxError: '(' was never closed (own.py, line 1)"]),
        ("import below\n", [
            "own.py:1 in <module>: import below",
            "below.py:1 in <module>: x = 1 / 0",
            "ZeroDivisionError: division by zero",
        ]),
    ],
    ids=["import", "syntax", "a file below"],
)  # fmt: skip
def test_a_file_that_cannot_be_imported_is_told_by_its_own_lines(
    text: str, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(text)
    (tmp_path / "below.py").write_text("x = 1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserCodeError) as caught:
        find_factory({}, "own:Own", "head")
    assert str(caught.value).splitlines() == told


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (HEAD.format(size="num_answers", inputs="fused.nothing"), [
            "error: own.py:11 in forward: return self.line(fused.nothing)",
            "error: AttributeError: 'Tensor' object has no attribute 'nothing'",
        ]),
        (HEAD.format(size="undefined", inputs="fused"), [
            "error: own.py:8 in __init__: self.line = nn.Linear(in_features, undefined)",
            "error: NameError: name 'undefined' is not defined",
        ]),
    ],
    ids=["forward", "init"],
)  # fmt: skip
def test_a_run_with_a_mistake_in_its_head_is_failed_with_the_reason(
    head: str, told: list[str], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(head)
    monkeypatch.chdir(tmp_path)
    path = write_experiment(tmp_path, head='name = "own:Own"')
    done = CliRunner().invoke(command, [str(path), "--cache", str(cache)])
    assert done.exit_code == 1
    assert done.stderr.splitlines() == told
    [failure] = tmp_path.glob("runs/*/failure.txt")
    assert [f"error: {line}" for line in failure.read_text().splitlines()] == told


def test_annotations_that_cannot_be_read_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(
        "class Own:\n    def __init__(self, *, wide: 'nothing' = 3): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    path = write_experiment(tmp_path, head='name = "own:Own"')
    done = CliRunner().invoke(command, [str(path), "--check"])
    assert done.stderr == (
        "error: head.name: Own: annotations cannot be read: name 'nothing' is not defined\n"
    )
