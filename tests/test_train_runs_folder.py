"""Run folders, baselines and the command line, on a small real cache."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console
from test_train_small_cache import (
    FEATURES,
    QUIET,
    digests,
    result_of,
    run_of,
    write_experiment,
)
from test_vqa_cache_durable import killed_writer

import train
import vqa_cache
from train.__main__ import command
from train.config.files import load_experiment
from train.engine.data import load_data
from train.errors import TrainError
from train.evaluation import baselines as baselines_module
from train.loop.fit import fit
from train.loop.training_loop import Watch
from train.runs import folder as runs_module
from train.runs.folder import load_run
from train.trainer import train as train_run

# ---------------------------------------------------------------- run folders


def test_a_finished_run_is_not_trained_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_of(tmp_path, cache)
    before = (first / "result.json").stat().st_mtime_ns
    monkeypatch.setattr("train.trainer.fit", None)
    assert run_of(tmp_path, cache) == first
    assert run_of(tmp_path, cache, "baselines=on", "load=map", "train.keep_last=7") == first
    assert (first / "result.json").stat().st_mtime_ns == before


def test_new_runs_are_numbered(tmp_path: Path, cache: Path) -> None:
    runs = [run_of(tmp_path, cache, new=True) for _ in range(3)]
    assert [run.name for run in runs[1:]] == [f"{runs[0].name}-2", f"{runs[0].name}-3"]
    assert digests(runs[0]) == digests(runs[2])


def test_an_unfinished_run_of_other_code_is_named_and_left_alone(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = run_of(tmp_path, cache)
    (old / "result.json").unlink()
    before = digests(old)
    changed = {"config": "", "data": "", "code": "changed"}
    real = runs_module.identity_of
    monkeypatch.setattr(
        runs_module, "identity_of", lambda *a: {**changed, **real(*a), "code": "changed"}
    )
    experiment = load_experiment(str(write_experiment(tmp_path)))
    run = train_run(experiment, cache=cache, runs=tmp_path / "runs", console=Console(width=200))
    assert run != old
    assert digests(old) == before
    assert f"{old} is unfinished too, but other code began it" in capsys.readouterr().out


def test_the_id_follows_a_users_head(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = (
        "import torch\n"
        "class MyHead(torch.nn.Linear):\n"
        "    def __init__(self, in_features, num_answers):\n"
        "        super().__init__(in_features, num_answers)\n"
    )
    names = []
    for text in (code, code, code + "# changed\n"):
        (tmp_path / "my_file.py").write_text(text)
        names.append(run_of(tmp_path, cache, head='name = "my_file:MyHead"').name)
    assert names[0] == names[1] != names[2]


def test_load_gives_config_and_result(tmp_path: Path, cache: Path) -> None:
    path = run_of(tmp_path, cache, "head.hidden=[4]")
    run = train.load(path)
    assert run.config.head.options["hidden"] == [4]
    assert run.config.identity() == load_run(path).config.identity()
    assert run.result["metrics"]["test"]["n"] == 60
    (path / "result.json").unlink()
    with pytest.raises(TrainError, match=r"no result.json; it is not finished"):
        train.load(path)
    with pytest.raises(TrainError, match=r"no result.json; no run is there"):
        train.load(tmp_path / "absent")


def test_checking_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fine = CliRunner().invoke(command, ["--check", "mlp_answers", "train.epochs=3", "--seeds", "2"])
    assert (fine.exit_code, fine.output) == (0, "")
    wrong = CliRunner().invoke(command, ["--check", "mlp_answers", "trian.epochs=3"])
    assert wrong.exit_code == 1
    assert "trian" in wrong.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"config": '])
def test_a_damaged_identity_is_passed_over_in_one_line(
    tmp_path: Path, cache: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of another unfinished run of the experiment, and the run's own."""
    experiment = load_experiment(str(write_experiment(tmp_path)), ["baselines=off"])
    data = load_data(experiment, vqa_cache.open(cache))
    own = runs_module.choose_folder(experiment, data.digest, tmp_path / "runs", new=False)
    for path in (tmp_path / "runs" / "tiny_mlp-0123456789ab", own.path):
        path.mkdir(parents=True)
        (path / "identity.json").write_text(content)
    how: dict[str, Any] = {"cache": cache, "runs": tmp_path / "runs"}
    run = train_run(experiment, console=Console(width=400), **how)
    told = [line for line in capsys.readouterr().out.splitlines() if "damaged" in line]
    assert sorted(told) == sorted(
        [
            f"{tmp_path}/runs/tiny_mlp-0123456789ab/identity.json is damaged: that unfinished run "
            "is passed over",
            f"{own.path}/identity.json is damaged: written anew",
        ]
    )
    assert run == own.path
    assert json.loads((run / "identity.json").read_text())["precision"] == "fp32"


# ---------------------------------------------------------------- baselines


def test_baselines_are_shared_between_heads(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = result_of(run_of(tmp_path, cache, "baselines=on"))
    assert len(list((tmp_path / "runs" / "baselines").glob("*.json"))) == 2
    monkeypatch.setattr(baselines_module, "fit", None)  # nothing is trained a second time
    second = result_of(run_of(tmp_path, cache, "baselines=on", head='name = "cosine"\nhidden = []'))
    for result in (first, second):
        del result["baselines"]["shuffled_pairs"]  # of the run's own head
    assert second["baselines"] == first["baselines"]


@pytest.mark.parametrize("content", ["", "[]", '{"splits": 3}'])
def test_a_damaged_baseline_is_trained_anew(
    tmp_path: Path, cache: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = load_experiment(str(write_experiment(tmp_path)), ["train.epochs=1"])
    data = load_data(experiment, vqa_cache.open(cache))
    how: dict[str, Any] = {"runs": tmp_path / "runs", "watch": Watch(Console(width=400))}
    first = baselines_module.run_baselines(experiment.config, data, **how)
    kept = {p: p.read_bytes() for p in (tmp_path / "runs" / "baselines").glob("*.json")}
    for path in kept:
        path.write_text(content)
    assert baselines_module.run_baselines(experiment.config, data, **how) == first
    assert capsys.readouterr().out.count(".json is damaged: trained anew") == 2
    assert {path: path.read_bytes() for path in kept} == kept


def test_baselines_of_another_precision_are_others(tmp_path: Path, cache: Path) -> None:
    """`auto` is bf16 on one processor and fp32 on another, with one config."""
    auto = {"train": "epochs = 1\nbatch_size = 16"}
    found = {}
    for precision in ("fp32", "bf16"):
        experiment = load_experiment(str(write_experiment(tmp_path, **auto)))
        data = load_data(experiment, vqa_cache.open(cache), precision=precision)
        baselines_module.run_baselines(
            experiment.config, data, runs=tmp_path / "runs", watch=Watch(QUIET)
        )
        found[precision] = set((tmp_path / "runs" / "baselines").glob("*.json"))
    assert len(found["fp32"]) == 2
    assert len(found["bf16"] - found["fp32"]) == 2


def test_what_a_killed_run_left_of_a_baseline_is_cleared_away(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "runs" / "baselines"
    folder.mkdir(parents=True)
    left = killed_writer(folder / "0123.json")
    assert left.exists()
    run_of(tmp_path, cache, "baselines=on")
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".json"]


@pytest.mark.parametrize("override", ["seed=1", "train.epochs=2", "train.batch_size=32"])
def test_baselines_follow_budget_and_seed(tmp_path: Path, cache: Path, override: str) -> None:
    run_of(tmp_path, cache, "baselines=on")
    run_of(tmp_path, cache, "baselines=on", override)
    assert len(list((tmp_path / "runs" / "baselines").glob("*.json"))) == 4


def test_a_baseline_is_the_mlp_experiment_on_one_modality(tmp_path: Path, cache: Path) -> None:
    """The same figures as a run with that head, optimiser and one table."""
    result = result_of(run_of(tmp_path, cache, "baselines=on", head='name = "linear"'))
    mlp = load_experiment("mlp_answers").config
    config = load_experiment(str(write_experiment(tmp_path, head='name = "linear"'))).config
    config = config.model_copy(
        update={"head": mlp.head, "optimizer": mlp.optimizer, "schedule": mlp.schedule}
    )
    experiment = load_experiment(str(write_experiment(tmp_path)))
    data = load_data(experiment, vqa_cache.open(cache))
    watch = Watch(QUIET)
    folder = tmp_path / "alone"
    fitted = fit(config, data, modalities=["text"], what="", folder=folder, watch=watch)
    assert result["baselines"]["question_only"]["val"]["accuracy"] == fitted.score.accuracy


def test_baselines_that_do_not_apply_say_why(tmp_path: Path, cache: Path) -> None:
    run = run_of(
        tmp_path, cache, "baselines=on", features='dataset = "tiny"\ntext = "pkg:tiny/model"'
    )
    baselines = result_of(run)["baselines"]
    assert baselines["image_only"] is None
    assert baselines["reasons"]["image_only"] == "the experiment has no features.image"
    off = result_of(run_of(tmp_path, cache, "seed=3", "baselines=off"))["baselines"]
    assert off["question_only"] is None
    assert off["reasons"]["question_only"] == "baselines = off"


# ---------------------------------------------------------------- command line


def invoke(folder: Path, cache: Path, *arguments: str) -> Any:
    path = write_experiment(folder)
    places = ["--cache", str(cache), "--runs", str(folder / "runs")]
    return CliRunner().invoke(command, [str(path), *places, *arguments])


def test_command_prints_the_run_last(tmp_path: Path, cache: Path) -> None:
    done = invoke(tmp_path, cache)
    assert done.exit_code == 0, done.output
    [run] = (tmp_path / "runs").glob("tiny_mlp-*")
    assert re.fullmatch(r"tiny_mlp-[0-9a-f]{12}", run.name)
    assert done.output.splitlines()[-1] == f"run: {run}"
    assert "tiny_mlp: epoch 3/3, loss " in done.output
    assert "majority" in done.output
    again = invoke(tmp_path, cache)
    assert again.exit_code == 0
    assert "already finished" in again.output
    assert again.output.splitlines()[-1] == f"run: {run}"


def test_seeds_print_mean_and_deviation(tmp_path: Path, cache: Path) -> None:
    done = invoke(tmp_path, cache, "--seeds", "2", "baselines=off")
    lines = done.output.splitlines()
    runs = [Path(line.removeprefix("run: ")) for line in lines[-2:]]
    accuracies = [result_of(run)["metrics"]["test"]["accuracy"] for run in runs]
    assert [result_of(run)["seed"] for run in runs] == [0, 1]
    mean, deviation = np.mean(accuracies), np.std(accuracies, ddof=1)
    assert lines[-3] == f"test accuracy, 2 seeds: {mean:.4f} ± {deviation:.4f} (mean ± sd)"


def errors_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> list[str]:
    monkeypatch.setattr("sys.argv", ["train", *arguments])
    with pytest.raises(SystemExit) as end:
        command()
    assert end.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_errors_are_one_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_experiment(tmp_path))
    lines = errors_of(monkeypatch, capsys, path, "train.epochs=no", "sed=1")
    assert [line.split(":")[0] for line in lines] == ["error", "error"]
    [line] = errors_of(monkeypatch, capsys, path, "--cache", str(tmp_path / "absent"))
    assert line.startswith(f"error: {tmp_path / 'absent'}: no cache here")
    [line] = errors_of(monkeypatch, capsys, "mlp_answer")
    assert line.startswith("error: unknown experiment 'mlp_answer'; did you mean mlp_answers?")
    [line] = errors_of(monkeypatch, capsys, path, "--seeds", "2", "seed=1")
    assert "seed is set twice" in line


def test_list_names_the_experiments() -> None:
    listed = CliRunner().invoke(command, ["--list"])
    assert listed.exit_code == 0
    assert re.search(r"^cosine_answers +\S", listed.output, re.MULTILINE)
    as_json = json.loads(CliRunner().invoke(command, ["--list", "--json"]).output)
    assert set(as_json) >= {"cosine_answers", "question_only"}


@pytest.mark.parametrize("arguments", [[], ["--json"], ["x", "--seeds", "0"], ["x", "--nope"]])
def test_wrong_usage_exits_with_two(arguments: list[str]) -> None:
    assert CliRunner().invoke(command, arguments).exit_code == 2


def test_a_shipped_experiment_runs_with_other_features(tmp_path: Path, cache: Path) -> None:
    done = CliRunner().invoke(
        command,
        [
            "cosine_answers",
            "features.dataset=tiny",
            *FEATURES,
            "train.epochs=1",
            *("--cache", str(cache), "--runs", str(tmp_path)),
        ],
    )
    assert done.exit_code == 0, done.output
