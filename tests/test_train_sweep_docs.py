"""Every command of docs/sweeps.md runs as it is typed, on a small cache of its encoders."""

from __future__ import annotations

from pathlib import Path

import pytest
from documents import NOT_HERE, blocks, typed
from test_train_small_cache import build_cache, small_dataset, write_experiment

LINES = [
    line
    for block in blocks("sh", "sweeps.md")
    if block.mark not in NOT_HERE
    for line in block.lines
]


def test_the_document_has_commands_of_every_kind() -> None:
    found = {line.split()[2] for line in LINES}
    assert found == {"train.lr_find", "train.ridge", "train.sweep"}


@pytest.mark.parametrize("line", LINES)
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
    typed(line)
