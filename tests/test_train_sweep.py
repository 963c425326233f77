"""What a sweep varies, what it proposes, and which trials share a pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_train_small_cache import (
    QUIET,
    write_experiment,
)

import vqa_cache
from train.config.files import load_experiment
from train.engine.data import load_data
from train.errors import ConfigError
from train.loop.fit import fit
from train.loop.training_loop import Watch
from train.sweep.__main__ import choose_sampler, choose_trials
from train.sweep.pack import evaluation_rows, group, most_lanes, rungs, train_pack
from train.sweep.propose import Told, importance, propose, round_bounds
from train.sweep.request import Request
from train.sweep.run import sweep
from train.sweep.space import parse_space, values_of


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
        (["mlp_answers", "optimizer.lr=lg:1e-4:1e-2"], "expected log:LO:HI or uniform:LO:HI"),
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
