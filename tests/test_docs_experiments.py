"""docs/experiments.md: its commands run as they are typed, its tables hold what the code has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from train.__main__ import command
from train.config.faithful import MISTAKES
from train.config.files import load_experiment
from vqa_cache.experiments import experiment_files

DOCUMENT = Path(__file__).parent.parent / "docs" / "experiments.md"
TEXT = DOCUMENT.read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
         for line in block.strip().splitlines()]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_a_documented_command_is_one(line: str) -> None:
    words = shlex.split(line)
    if words[0] == "make":  # through both stages: tests/test_benchmarks_systems.py
        settings = dict(word.split("=") for word in words[2:])
        load_experiment(settings["EXP"], [f"features.dataset={settings['ON']}"])
    else:
        assert words[:3] == ["python", "-m", "train"]
        found = CliRunner().invoke(command, words[3:])
        assert found.exit_code == 0, found.output
        assert found.output


@pytest.mark.parametrize("text", re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL))
def test_a_documented_piece_of_a_file_is_valid(text: str, tmp_path: Path) -> None:
    path = tmp_path / "piece.toml"
    path.write_text(text if "extends" in text else f'extends = "upc-1b"\n{text}')
    load_experiment(str(path))
    load_experiment(str(path), ["features.dataset=shapes"])


def test_every_mistake_is_documented() -> None:
    assert re.findall(r"^\| `(\w+)` \|", TEXT[TEXT.index("## Published mistakes") :], re.M) == list(
        MISTAKES
    )


def test_as_many_published_systems_as_it_says() -> None:
    found = [path for path in experiment_files().values() if "journals" in path.parts]
    assert f"{len(found)} published systems" in TEXT
