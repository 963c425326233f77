"""Sweeps on a small real cache: proposals, packs, the record, stopping and going on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_train_small_cache import (
    QUIET,
    result_of,
    write_experiment,
)

import vqa_cache
from benchmarks.resume.sweeps import SweepCampaign, SweepCounts, compare, disturb_sweeps
from train.config.files import load_experiment
from train.engine.data import load_data
from train.errors import ConfigError, TrainError
from train.loop.fit import Watch, fit
from train.sweep.__main__ import choose_sampler, choose_trials, command
from train.sweep.pack import evaluation_rows, group, most_lanes, rungs, train_pack
from train.sweep.propose import Told, importance, propose, round_bounds
from train.sweep.record import Record
from train.sweep.request import Request
from train.sweep.run import sweep
from train.sweep.space import parse_space, values_of

ROOT = Path(__file__).parent.parent


@pytest.fixture
def experiment(tmp_path: Path) -> str:
    return str(write_experiment(tmp_path))


def request_of(*words: str, sampler: Any = "grid", trials: int = 0, **options: Any) -> Request:
    space = parse_space(words)
    settings = {"pruner": "none", "seed": 0, "lanes": 32, "winners": 0, **options}
    return Request(space, sampler, trials=trials or space.grid_size or 0, **settings)


def run_sweep(request: Request, cache: Path, runs: Path) -> dict[str, Any]:
    return sweep(request, cache=cache, runs=runs, watch=Watch(QUIET))


def record_of(result: dict[str, Any]) -> Path:
    return Path(result["sweep"]) / "trials.jsonl"


# ---------------------------------------------------------------- what varies


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer.lr=1,2"], "no experiment named; python -m train --list shows them"),
        (["mlp_answers"], "nothing varies; give a key several values, such as optimizer.lr="),
        (["mlp_answers", "seed=1"], "nothing varies"),
        (["mlp_answers", "seed=1,"], "seed=1,: a value is empty; expected KEY=V1,V2"),
        (["mlp_answers", "seed=1,1"], "seed=1,1: 1 is listed twice"),
        (["mlp_answers", "seed=1,2", "seed=3"], "seed is set twice; set it once"),
        (["mlp_answers", "mlp_answers", "seed=1,2"], "experiment 'mlp_answers' is named twice"),
        (["mlp_answers", "optimizer.lr=log:0:1"], "a log range cannot reach zero"),
        (["mlp_answers", "optimizer.lr=log:-1:1"], "a log range cannot reach zero"),
        (["mlp_answers", "optimizer.lr=uniform:2:2"], "the range is empty; expected a low end"),
        (["mlp_answers", "optimizer.lr=log:a:b"], "expected two numbers, such as log:1e-4:1e-1"),
        (["mlp_answers", "optimizer.lr=log:1"], "expected two numbers, such as log:1e-4:1e-1"),
        (["mlp_answers", "answers.k=uniform:1:9"], "what is read cannot be a range; list its"),
        (["mlp_answers", "optimizer.rate=1,2"], "optimizer.rate = 1: unknown key"),
        (["mlp_answers", "train.epochs=uniform:1:2.5"], "the key takes whole numbers"),
        (["mlp_answers", "train.epochs=uniform:-1:4"], "train.epochs = -1: expected"),
        (["no_such", "seed=1,2"], "unknown experiment 'no_such'"),
    ],
)
def test_what_cannot_be_swept_is_one_clear_line(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_space(words)
    assert any(message in line for line in caught.value.lines), caught.value.lines


def test_values_are_read_as_the_configs_read_them() -> None:
    space = parse_space(
        [
            "mlp_answers",
            "head.hidden=[8],[16, 8]",
            "head.batch_norm=true,false",
            "optimizer.lr=log:1e-4:1e-1",
            "train.batch_size=uniform:16:64",
            "train.epochs=2",
        ]
    )
    assert space.fixed == ("train.epochs=2",)
    assert space.grid_size is None
    (params,) = propose(space, "random", seed=0, first=0, count=1, told=[])
    values = values_of(params)
    config = space.experiment("mlp_answers", params).config
    assert config.head.options["hidden"] == values["head.hidden"]
    assert config.optimizer.options["lr"] == values["optimizer.lr"]
    assert 16 <= config.train.batch_size <= 64
    assert isinstance(config.train.batch_size, int)


def test_the_sampler_and_the_number_of_trials() -> None:
    assert choose_sampler(None, 4) == "grid"
    assert choose_sampler(None, None) == "tpe"
    with pytest.raises(ConfigError, match="--sampler grid: a range has no grid"):
        choose_sampler("grid", None)
    assert choose_trials(None, "grid", 6) == 6
    assert choose_trials(None, "tpe", None) == 32
    with pytest.raises(ConfigError, match="--trials 5: the grid has 6 settings; raise --trials"):
        choose_trials(5, "grid", 6)


# ---------------------------------------------------------------- proposals


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_proposals_are_a_function_of_seed_and_earlier_results(sampler: Any) -> None:
    space = parse_space(["mlp_answers", "optimizer.lr=log:1e-4:1e-1", "head.batch_norm=true,false"])
    told: list[Told] = []
    for first in range(0, 24, 8):
        asked = {"seed": 3, "first": first, "count": 8}
        proposed = propose(space, sampler, **asked, told=told)
        assert proposed == propose(space, sampler, **asked, told=told)
        assert proposed != propose(space, sampler, **{**asked, "seed": 4}, told=told)
        for number, params in enumerate(proposed):
            value = 1 - abs(float(params["optimizer.lr"]) - 0.01)
            told.append(Told(params, value if number else None, 3 if number % 3 == 1 else None))
    worse = [Told(trial.params, 1 - (trial.value or 0)) for trial in told]
    after = {"seed": 3, "first": 24, "count": 8}
    same = propose(space, sampler, **after, told=told) == propose(
        space, sampler, **after, told=worse
    )
    assert same == (sampler == "random")


def test_tpe_learns_at_least_four_times_and_others_have_one_round() -> None:
    assert round_bounds("tpe", 32, 32) == [(0, 8), (8, 16), (16, 24), (24, 32)]
    assert round_bounds("tpe", 1000, 32)[0] == (0, 32)
    assert round_bounds("random", 100, 32) == [(0, 100)]


@pytest.mark.parametrize("trials", [8, 12, 40])
def test_the_second_round_of_tpe_depends_on_the_first(trials: int) -> None:
    space = parse_space(["mlp_answers", "optimizer.lr=log:1e-4:1e-1"])
    (_, end), second, *_ = round_bounds("tpe", trials, 32)
    first = propose(space, "tpe", seed=0, first=0, count=end, told=[])
    asked = {"seed": 0, "first": second[0], "count": second[1] - second[0]}
    rates = [float(params["optimizer.lr"]) for params in first]
    rising, falling = (
        [Told(params, sign * rate) for params, rate in zip(first, rates, strict=True)]
        for sign in (1, -1)
    )
    high = propose(space, "tpe", **asked, told=rising)
    assert high != propose(space, "tpe", **asked, told=falling)
    assert high != propose(space, "random", **asked, told=[])


def test_importance_finds_the_key_that_matters_or_says_why_not() -> None:
    space = parse_space(["mlp_answers", "optimizer.lr=log:1e-4:1e-1", "head.dropout=uniform:0:0.9"])
    proposed = propose(space, "random", seed=0, first=0, count=60, told=[])
    told = [Told(params, -abs(float(params["optimizer.lr"]) - 0.01)) for params in proposed]
    shares, reason = importance(space, told)
    assert shares is not None
    assert reason is None
    assert shares["optimizer.lr"] > 0.8
    assert importance(space, told[:3]) == (None, "needs 4 finished trials at least, found 3")
    flat = [Told(trial.params, 0.5) for trial in told]
    assert importance(space, flat) == (None, "all finished trials have the same accuracy")


# ---------------------------------------------------------------- packs


def test_only_trials_of_one_shape_share_a_pass(experiment: str) -> None:
    space = parse_space([experiment, "optimizer.lr=1e-3,1e-2,3e-2", "head.hidden=[8],[16]"])
    configs = [
        space.experiment(experiment, {"head.hidden": hidden, "optimizer.lr": rate}).config
        for rate in ("1e-3", "1e-2", "3e-2")
        for hidden in ("[8]", "[16]")
    ]
    assert group(configs, 32) == [[0, 2, 4], [1, 3, 5]]
    assert group(configs, 2) == [[0, 2], [4], [1, 3], [5]]


def test_a_pack_takes_no_more_lanes_than_fit_into_memory(experiment: str) -> None:
    large = load_experiment(
        experiment, ["train.batch_size=5000", "answers.k=1000", "head.hidden=[1536]"]
    ).config
    assert group([large] * 32, 32) == [list(range(14)), list(range(14, 28)), [28, 29, 30, 31]]
    assert most_lanes(large) * 5000 * 2536 * 24 <= 4 << 30
    assert most_lanes(load_experiment(experiment).config) > 1000


@pytest.mark.parametrize("answers", [4, 1000, 100_000])
def test_lanes_are_evaluated_in_the_memory_that_bounds_their_training(
    experiment: str, answers: int
) -> None:
    config = load_experiment(experiment, [f"answers.k={answers}", "head.hidden=[]"]).config
    for lanes in (1, 8, min(32, most_lanes(config))):
        rows = evaluation_rows(config, lanes)
        assert rows >= 1
        assert rows * lanes * answers * 24 <= 4 << 30
    assert evaluation_rows(config, 1) == 1024


def test_rungs_are_evaluations_before_the_last() -> None:
    assert rungs(frozenset(range(1, 17)), 16) == {2, 4, 8}
    assert rungs(frozenset({1, 2, 3}), 3) == {1, 2}
    assert rungs(frozenset({3, 6, 9, 12, 15, 16}), 16) == {3, 6, 9}
    assert rungs(frozenset({1}), 1) == set()


@pytest.mark.parametrize("head", ['name = "mlp"\nhidden = [16]', 'name = "cosine"\nhidden = [8]'])
def test_a_pack_comes_to_what_single_runs_come_to(tmp_path: Path, cache: Path, head: str) -> None:
    path = str(write_experiment(tmp_path, head=head))
    changes = [
        ["optimizer.lr=1e-3"],
        ["head.dropout=0.3", "seed=2"],
        ["optimizer.lr=1e38", "optimizer.weight_decay=1e3"],
        ["loss.class_weight_power=1.0", "loss.temperature=0.5", "loss.label_smoothing=0.1"],
    ]
    experiments = [load_experiment(path, change) for change in changes]
    data = load_data(experiments[0], vqa_cache.open(cache))
    configs = [experiment.config for experiment in experiments]
    assert group(configs, 32) == [[0, 1, 2, 3]]
    outcomes = train_pack(configs, data, pruner="none", what="pack", watch=Watch(QUIET))
    assert [outcome.status for outcome in outcomes] == [
        "finished",
        "finished",
        "diverged",
        "finished",
    ]
    for number, (config, outcome) in enumerate(zip(configs, outcomes, strict=True)):
        if outcome.score is not None:
            folder = tmp_path / str(number)
            alone = fit(
                config, data, modalities=data.tables, what="", folder=folder, watch=Watch(QUIET)
            )
            assert outcome.score.accuracy == alone.score.accuracy
            assert outcome.score.cross_entropy == pytest.approx(alone.score.cross_entropy, rel=1e-4)
            assert outcome.epoch == alone.epoch


def test_halving_stops_the_worse_half(cache: Path, experiment: str, tmp_path: Path) -> None:
    request = request_of(
        experiment,
        "optimizer.lr=1e-5,1e-4,1e-3,1e-2,3e-2,1e38",
        "train.epochs=8",
        pruner="halving",
    )
    result = run_sweep(request, cache, tmp_path / "runs")
    assert result["counts"] == {"finished": 1, "pruned": 4, "diverged": 1}
    by_rate = {row["params"]["optimizer.lr"]: row for row in result["trials"]}
    assert by_rate[1e-2]["status"] == "finished" or by_rate[3e-2]["status"] == "finished"
    assert sorted(row["epochs"] for row in result["trials"] if row["status"] == "pruned") == [
        1,
        1,
        2,
        4,
    ]


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


def test_the_command_prints_a_table_or_one_object(
    cache: Path, experiment: str, tmp_path: Path
) -> None:
    line = command_line(cache, tmp_path / "runs", experiment, "optimizer.lr=1e-4,1e-2")
    done = CliRunner().invoke(command, line, catch_exceptions=False)
    assert done.exit_code == 0
    assert "best trials of 2 finished" in done.stdout
    assert "importance of keys" in done.stdout
    assert "needs 4 finished trials at least, found 2" in done.stdout
    assert "winner: " in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"sweep: {tmp_path}")
    done = CliRunner().invoke(command, [*line, "--json"], catch_exceptions=False)
    assert set(json.loads(done.stdout)) == {"sweep", "counts", "trials", "importance", "winners"}


def test_without_a_finished_trial_there_is_no_winner(
    cache: Path, experiment: str, tmp_path: Path
) -> None:
    line = command_line(cache, tmp_path / "runs", experiment, "optimizer.lr=1e37,1e38")
    done = CliRunner().invoke(command, line, catch_exceptions=False)
    assert done.exit_code == 0
    assert "best trials of 2 diverged" in done.stdout
    assert "no winner: no trial trained to the end" in done.stdout


def test_a_users_error_is_one_line_on_stderr(cache: Path, tmp_path: Path) -> None:
    line = command_line(cache, tmp_path / "runs", "mlp_answers", "optimizer.lr=log:0:1")
    done = subprocess.run(
        [sys.executable, "-m", "train.sweep", *line],
        cwd=ROOT,
        env={**os.environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: optimizer.lr=log:0:1: a log range cannot reach zero; expected a low end over 0"
    )
