"""Learning rates in one pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_train_small_cache import QUIET, write_experiment

import vqa_cache
from train.config.files import load_experiment
from train.engine.data import load_data
from train.errors import TrainError
from train.loop.fit import fit
from train.loop.training_loop import Watch
from train.lr_find import Tried, best_of, command, rate_grid


def test_rates_are_evenly_spaced_on_a_log_axis() -> None:
    assert rate_grid(1e-4, 1.0, 5) == [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert len(rate_grid(1e-5, 1.0, 64)) == 64


def test_the_named_rate_is_the_best_of_single_runs(
    tmp_path: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = str(write_experiment(tmp_path))
    line = [path, "--cache", str(cache), "--rates", "4", "--low", "1e-4", "--high", "1e-1"]
    done = CliRunner().invoke(command, [*line, "--epochs", "2", "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert [row["lr"] for row in found["rates"]] == [1e-4, 1e-3, 1e-2, 1e-1]
    losses = {}
    for row in found["rates"]:
        experiment = load_experiment(path, [f"optimizer.lr={row['lr']}", "train.epochs=2"])
        data = load_data(experiment, vqa_cache.open(cache))
        folder = tmp_path_factory.mktemp("alone")
        watch = Watch(QUIET)
        alone = fit(
            experiment.config, data, modalities=data.tables, what="", folder=folder, watch=watch
        )
        assert row["accuracy"] == alone.score.accuracy
        assert row["cross_entropy"] == pytest.approx(alone.score.cross_entropy, rel=1e-4)
        losses[row["lr"]] = alone.score.cross_entropy
    assert found["lr"] == min(losses, key=lambda rate: losses[rate])
    assert list(tmp_path.iterdir()) == [Path(path)], "nothing is written"


def test_the_terminal_shows_every_rate_and_names_one(tmp_path: Path, cache: Path) -> None:
    path = str(write_experiment(tmp_path, schedule='name = "cosine"\nwarmup_steps = 30'))
    line = [path, "--cache", str(cache), "--rates", "6", "--high", "1e40"]
    done = CliRunner().invoke(command, line, catch_exceptions=False)
    assert "diverged" in done.stdout
    assert "█" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("optimizer.lr=")


def test_misuse_is_told() -> None:
    for high in ("0.1", "inf", "nan"):
        done = CliRunner().invoke(command, ["x", "--low", "0.1", "--high", high])
        assert done.exit_code == 1
        expected = f"error: --low 0.1 --high {high}: expected finite rates, 0 < low < high\n"
        assert done.stderr == expected
    with pytest.raises(TrainError, match="every rate from 1 to 10 diverged; lower --low"):
        best_of([Tried(1.0, None, None), Tried(10.0, None, None)])
