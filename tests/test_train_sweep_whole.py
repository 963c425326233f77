"""Whole sweeps on a small real cache: winners, the record, stopping and going on."""

from __future__ import annotations

import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_train_small_cache import (
    result_of,
    write_experiment,
)
from test_train_sweep import record_of, request_of, run_sweep

from benchmarks.resume.sweeps import SweepCampaign, SweepCounts, compare, disturb_sweeps
from train.errors import ConfigError, TrainError
from train.sweep.__main__ import command
from train.sweep.record import Record

ROOT = Path(__file__).parent.parent


# ---------------------------------------------------------------- whole sweeps


def test_a_sweep_names_its_winner_after_training_it_alone(
    cache: Path, experiment: str, tmp_path: Path
) -> None:
    request = request_of(experiment, "optimizer.lr=1e-4,1e-2", "seed=4,5", winners=1)
    result = run_sweep(request, cache, tmp_path / "runs")
    assert [row["trial"] for row in result["trials"]] == [0, 1, 2, 3]
    (winner,) = result["winners"]
    assert winner["params"] == {"optimizer.lr": 1e-2}
    runs = [result_of(Path(path)) for path in winner["runs"]]
    assert [run["seed"] for run in runs] == [0, 1, 2], "seeds that no trial had"
    values = [run["metrics"]["val"]["accuracy"] for run in runs]
    assert winner["values"] == values
    assert winner["mean"] == pytest.approx(statistics.mean(values))
    assert winner["deviation"] == pytest.approx(statistics.stdev(values))
    assert runs[0]["baselines"]["majority"] is None
    text = (Path(result["sweep"]) / "sweep.toml").read_text()
    assert 'space = ["optimizer.lr=1e-4,1e-2", "seed=4,5"]' in text


def test_several_experiments_and_optimisers_without_lanes(cache: Path, tmp_path: Path) -> None:
    names = [
        str(write_experiment(tmp_path, "one")),
        str(write_experiment(tmp_path, "two", optimizer='name = "sgd"\nlr = 1e-2')),
    ]
    result = run_sweep(request_of(*names, "optimizer.lr=1e-3,1e-2"), cache, tmp_path / "runs")
    assert [(row["trial"], row["experiment"]) for row in result["trials"]] == [
        (0, names[0]),
        (1, names[0]),
        (2, names[1]),
        (3, names[1]),
    ]
    assert all(row["value"] > 0 for row in result["trials"])
    assert Path(result["sweep"]).name.startswith("sweep-one+two-")


def test_data_may_vary_by_listed_values(cache: Path, experiment: str, tmp_path: Path) -> None:
    words = (experiment, "features.normalise=none,zscore", "data_seed=0,1")
    result = run_sweep(request_of(*words), cache, tmp_path / "runs")
    assert [row["params"]["data_seed"] for row in result["trials"]] == [0, 1, 0, 1]
    assert len({row["cross_entropy"] for row in result["trials"]}) == 4


def test_values_that_do_not_go_together_name_the_trial(
    cache: Path, experiment: str, tmp_path: Path
) -> None:
    words = (experiment, "head.batch_norm=true,false", "train.batch_size=1,16")
    with pytest.raises(ConfigError, match=r"at least 2 .*with head.batch_norm=true train.batch_s"):
        run_sweep(request_of(*words), cache, tmp_path / "runs")


# ---------------------------------------------------------------- stopping and going on


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_cut_anywhere_the_sweep_ends_the_same(
    cache: Path, experiment: str, tmp_path: Path, sampler: str
) -> None:
    request = request_of(
        experiment,
        "optimizer.lr=1e-4,1e-3,1e-2" if sampler == "grid" else "optimizer.lr=log:1e-4:1e-1",
        "head.hidden=[8],[16]",
        "train.epochs=1",
        sampler=sampler,
        trials=6 if sampler == "grid" else 12,
        lanes=2,
        winners=1,
    )
    whole = run_sweep(request, cache, tmp_path / "runs")
    record = record_of(whole)
    text = record.read_bytes()
    numbers = [json.loads(line)["trial"] for line in text.splitlines()]
    assert sorted(numbers) == list(range(request.trials))
    for cut in range(0, len(text), len(text) // 4):
        record.write_bytes(text[:cut])
        assert run_sweep(request, cache, tmp_path / "runs") == whole
        assert record.read_bytes() == text


def test_a_finished_sweep_trains_nothing_again(
    cache: Path, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of(experiment, "optimizer.lr=1e-3,1e-2")
    whole = run_sweep(request, cache, tmp_path / "runs")
    monkeypatch.setattr("train.sweep.engine.train_pack", None)
    assert run_sweep(request, cache, tmp_path / "runs") == whole
    other = request_of(experiment, "optimizer.lr=1e-3,1e-2", seed=1)
    with pytest.raises(TypeError):
        run_sweep(other, cache, tmp_path / "runs")  # another sweep, with a folder of its own


def test_a_sweep_goes_on_in_the_precision_that_it_began_with(
    cache: Path, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (experiment, "optimizer.lr=1e-3,1e-2", "train.precision=auto")
    request = request_of(*words, lanes=1)
    choose = "train.engine.data.choose_precision"
    monkeypatch.setattr(choose, lambda *_, **__: "fp32")
    record = record_of(run_sweep(request, cache, tmp_path / "runs"))
    text = record.read_text()
    first, _second = text.splitlines(keepends=True)
    record.write_text(first)
    monkeypatch.setattr(choose, lambda *_, **__: "bf16")  # another machine, or another moment
    run_sweep(request, cache, tmp_path / "runs")
    assert record.read_text() == text
    other = record_of(run_sweep(request, cache, tmp_path / "other"))
    assert other.read_text() != text
    settings = record.with_name("sweep.toml")
    settings.write_text("precisions = nonsense")
    with pytest.raises(TrainError, match=r"sweep.toml: .*; the file was changed: remove the sw"):
        run_sweep(request, cache, tmp_path / "runs")


def test_more_winners_train_no_trial_again(
    cache: Path, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (experiment, "optimizer.lr=1e-3,1e-2")
    without = run_sweep(request_of(*words), cache, tmp_path / "runs")
    monkeypatch.setattr("train.sweep.engine.train_pack", None)
    result = run_sweep(request_of(*words, winners=2), cache, tmp_path / "runs")
    assert result["trials"] == without["trials"]
    assert sorted(winner["trial"] for winner in result["winners"]) == [0, 1]


def test_a_record_that_was_changed_is_refused(cache: Path, experiment: str, tmp_path: Path) -> None:
    request = request_of(experiment, "optimizer.lr=1e-3,1e-2", lanes=1)
    record = record_of(run_sweep(request, cache, tmp_path / "runs"))
    text = record.read_text()
    record.write_text(text.replace("0.001", "0.002"))
    with pytest.raises(TrainError, match=r"trial 0 has .*0\.002.*, expected .*0\.001"):
        run_sweep(request, cache, tmp_path / "runs")
    record.write_text("nonsense\n" + text)
    with pytest.raises(TrainError, match=r"trials.jsonl:1: not a trial; mend the line"):
        run_sweep(request, cache, tmp_path / "runs")


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        Record(tmp_path / "sweep-x", {}),
        pytest.raises(TrainError, match="another process runs this sweep"),
    ):
        Record(tmp_path / "sweep-x", {})
    Record(tmp_path / "sweep-x", {}).__exit__()


def command_line(cache: Path, runs: Path, *words: str) -> list[str]:
    return [*words, "--cache", str(cache), "--runs", str(runs)]


def test_a_stopped_process_goes_on(cache: Path, experiment: str, tmp_path: Path) -> None:
    """By SIGTERM; what SIGKILL leaves `test_random_kills_lose_and_double_no_trial` sees."""
    rates = "optimizer.lr=" + ",".join(f"{rate}e-3" for rate in range(1, 9))
    arguments = [experiment, rates, "train.epochs=6", "--lanes", "1", "--winners", "0"]
    line = [sys.executable, "-m", "train.sweep"]
    line += command_line(cache, tmp_path / "runs", *arguments, "--json")
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    kept = 0
    while kept < 2 and time.monotonic() < deadline:
        kept = sum(len(p.read_text().splitlines()) for p in tmp_path.glob("runs/*/trials.jsonl"))
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"stopped by a signal; finished packs are kept; the same command goes on" in errors
    assert b"Traceback" not in errors
    (record,) = tmp_path.glob("runs/*/trials.jsonl")
    assert 2 <= len(record.read_text().splitlines()) < 8

    request = request_of(*arguments[:3], lanes=1)
    result = run_sweep(request, cache, tmp_path / "runs")
    assert Path(result["sweep"]) == record.parent
    assert [row["trial"] for row in result["trials"]] == list(range(8))
    assert run_sweep(request, cache, tmp_path / "fresh")["trials"] == result["trials"]


def test_random_kills_lose_and_double_no_trial(
    cache: Path, experiment: str, tmp_path: Path
) -> None:
    """The short form of the sweeps in `python -m benchmarks resume`; its counts can tell."""
    words = (experiment, "optimizer.lr=log:1e-4:1e-1", "train.epochs=2")
    request = request_of(*words, sampler="tpe", trials=8, lanes=2, winners=1)
    counts = SweepCounts()
    campaign = SweepCampaign("tpe", cache, tmp_path, request)
    disturb_sweeps(campaign, counts, random.Random(0), kills=2)
    assert counts.sweep_kills >= 2
    assert counts.same, counts

    reference, damaged = tmp_path / "reference", tmp_path / "damaged"
    shutil.copytree(reference, damaged)
    (record,) = damaged.glob("sweep-*/trials.jsonl")
    lines = record.read_text().splitlines(keepends=True)
    lines[0] = lines[1]
    lines[-1] = lines[-1].replace('"epochs": 2', '"epochs": 3')
    record.write_text("".join(lines))
    compare("tpe", reference, damaged, counts)
    assert (counts.trials_lost, counts.trials_doubled) == (1, 1)
    assert counts.sweep_differing == ["tpe: trial 7"]


def printed(cache: Path, runs: Path, *words: str) -> str:
    """What a sweep that ends well prints."""
    done = CliRunner().invoke(command, command_line(cache, runs, *words), catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_command_prints_a_table_or_one_object(
    cache: Path, experiment: str, tmp_path: Path
) -> None:
    words = (experiment, "optimizer.lr=1e-4,1e-2")
    shown = printed(cache, tmp_path / "runs", *words)
    assert "best trials of 2 finished" in shown
    assert "importance of keys" in shown
    assert "needs 4 finished trials at least, found 2" in shown
    assert "winner: " in shown
    assert shown.splitlines()[-1].startswith(f"sweep: {tmp_path}")
    as_json = printed(cache, tmp_path / "runs", *words, "--json")
    assert set(json.loads(as_json)) == {"sweep", "counts", "trials", "importance", "winners"}


def test_without_a_finished_trial_there_is_no_winner(
    cache: Path, experiment: str, tmp_path: Path
) -> None:
    shown = printed(cache, tmp_path / "runs", experiment, "optimizer.lr=1e37,1e38")
    assert "best trials of 2 diverged" in shown
    assert "no winner: no trial trained to the end" in shown


def test_a_users_error_is_one_line_on_stderr(cache: Path, tmp_path: Path) -> None:
    line = command_line(cache, tmp_path / "runs", "mlp_answers", "optimizer.lr=log:0:1")
    done = CliRunner().invoke(command, line)
    assert done.exit_code == 1
    assert done.stderr.strip() == (
        "error: optimizer.lr=log:0:1: a log range cannot reach zero; expected a low end over 0"
    )
