"""Every command of docs/sweeps.md runs as it is typed, on a small cache of its encoders."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_train_small_cache import build_cache, small_dataset, write_experiment

from train import lr_find
from train.ridge import command as ridge
from train.sweep.__main__ import command as sweep_command

DOCUMENT = Path(__file__).parent.parent / "docs" / "sweeps.md"
COMMANDS = {
    "train.lr_find": lr_find.command,
    "train.ridge": ridge.command,
    "train.sweep": sweep_command,
}


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.strip().splitlines()]


def test_the_document_has_commands_of_every_kind() -> None:
    found = {line.split()[2] for line in commands()}
    assert found == set(COMMANDS)


@pytest.mark.parametrize("line", commands())
def test_a_documented_command_runs(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_cache(tmp_path / "cache", small_dataset(), name="easy_vqa")
    experiments = tmp_path / "experiments"
    experiments.mkdir()
    path = write_experiment(experiments, "mlp_answers")
    path.write_text(path.read_text().replace('"tiny"', '"easy_vqa"'))
    monkeypatch.setattr("vqa_cache.experiments.EXPERIMENTS", experiments)
    monkeypatch.chdir(tmp_path)
    python, dash_m, module, *arguments = shlex.split(line)
    assert (python, dash_m) == ("python", "-m")
    done = CliRunner().invoke(COMMANDS[module], arguments, catch_exceptions=False)
    assert done.exit_code == 0
