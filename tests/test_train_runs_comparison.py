"""Comparing two runs, and validating snapshots, on runs that were really trained."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from test_train_small_cache import QUIET, build_cache, run_of, small_dataset, write_experiment

import vqa_cache
from train.config.files import load_experiment
from train.errors import TrainError
from train.metrics import classification as metrics
from train.runs.__main__ import command
from train.runs.comparison import compare_accuracy, find_group
from train.runs.registry import Registry
from train.trainer import train as train_run

SNAPSHOTS = ("train.snapshot_every=1", "train.keep_last=3", "baselines=off")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder of two runs that no test changes: one epoch, and three of another head."""
    folder = tmp_path_factory.mktemp("trained")
    run_of(folder, cache, "train.epochs=1", "seed=1", *SNAPSHOTS)
    run_of(folder, cache, *SNAPSHOTS, head='name = "linear"')
    return folder / "runs"


@pytest.fixture
def runs(tmp_path: Path, trained: Path) -> Path:
    shutil.copytree(trained, tmp_path / "runs")
    return tmp_path / "runs"


def ids(runs: Path) -> tuple[str, str]:
    rows = Registry.open(runs)
    rows.refresh()
    by_head = {row["head.name"]: row["run"] for row in rows.rows()}
    return by_head["mlp"], by_head["linear"]


def invoke(runs: Path, cache: Path, *arguments: str) -> Result:
    return CliRunner().invoke(
        command, [*arguments, "--runs", str(runs), "--cache", str(cache)], catch_exceptions=False
    )


def errors_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: Path | str
) -> list[str]:
    monkeypatch.setattr("sys.argv", ["runs", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        command()
    assert end.value.code == 1
    return capsys.readouterr().err.splitlines()


# ---------------------------------------------------------------- compare


def test_compare_shows_settings_curves_and_the_difference(runs: Path, cache: Path) -> None:
    a, b = ids(runs)
    shown = json.loads(invoke(runs, cache, "compare", a, b, "--json").stdout)
    settings = shown["settings"]
    assert settings["head.name"] == ["mlp", "linear"]
    assert settings["train.epochs"] == [1, 3]
    assert settings["head.hidden"] == [[16], None]
    assert "optimizer.lr" not in settings
    accuracy = shown["accuracy"]
    for run, key in ((a, "a"), (b, "b")):
        result = json.loads((runs / run / "result.json").read_text())
        assert accuracy[key] == pytest.approx(result["metrics"]["test"]["accuracy"])
    assert accuracy["difference"] == pytest.approx(accuracy["b"] - accuracy["a"])
    assert accuracy["low"] <= accuracy["difference"] <= accuracy["high"]
    assert (accuracy["split"], accuracy["n"], accuracy["images"]) == ("test", 60, 12)
    assert [len(curves["val.accuracy"]) for curves in shown["curves"]] == [1, 3]
    text = invoke(runs, cache, "compare", a, b).stdout
    assert "val accuracy by epoch" in text
    assert "95% interval" in text
    assert "n 60 questions of 12 images" in text
    assert "with fewer than 30 images the interval itself is rough" in text
    back = json.loads(invoke(runs, cache, "compare", b, a, "--json").stdout)["accuracy"]
    assert back["low"] == pytest.approx(-accuracy["high"])


def test_groups_of_seeds_are_compared_as_groups(tmp_path: Path, cache: Path) -> None:
    runs = tmp_path / "runs"

    def train(name: str, head: str, *overrides: str) -> None:
        path = write_experiment(tmp_path, head=head).rename(tmp_path / f"{name}.toml")
        experiment = load_experiment(str(path), ["baselines=off", "train.epochs=1", *overrides])
        train_run(experiment, cache=cache, runs=runs, console=QUIET)

    for seed in ("seed=0", "seed=1"):
        train("one", 'name = "mlp"\nhidden = [8]', seed)
        train("other", 'name = "linear"', seed)
    shown = json.loads(invoke(runs, cache, "compare", "one", "other", "--json").stdout)
    assert [len(shown[key]) for key in "ab"] == [2, 2]
    assert "seed" not in shown["settings"]
    accuracy = shown["accuracy"]
    of = {
        key: [
            json.loads((runs / run / "result.json").read_text())["metrics"]["test"]["accuracy"]
            for run in shown[key]
        ]
        for key in "ab"
    }
    assert accuracy["a"] == pytest.approx(np.mean(of["a"]))
    assert accuracy["difference"] == pytest.approx(np.mean(of["b"]) - np.mean(of["a"]))
    assert (accuracy["seeds_a"], accuracy["seeds_b"]) == ([0, 1], [0, 1])
    text = invoke(runs, cache, "compare", "one", "other").stdout
    assert "seeds A 0, 1, B 0, 1, judged in pairs" in text
    train("one", 'name = "mlp"\nhidden = [8]', "seed=5", "optimizer.lr=1e-4")
    with pytest.raises(
        TrainError, match=r"'one' means 3 finished runs that differ in optimizer.lr"
    ):
        find_group(Registry.open(runs), "one")


def test_runs_that_differ_in_more_than_the_seed_are_no_group(
    runs: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = ids(runs)[0].partition("-")[0]
    where = ("--runs", runs, "--cache", cache)
    [line] = errors_of(monkeypatch, capsys, "compare", prefix, prefix, *where)
    assert f"{prefix!r} means 2 finished runs that differ in " in line
    assert "head.name" in line
    assert line.endswith("type more of the id")


def test_the_selection_part_can_be_compared_although_train_holds_it(
    runs: Path, cache: Path
) -> None:
    a, b = ids(runs)
    done = json.loads(invoke(runs, cache, "compare", a, b, "--split", "val", "--json").stdout)
    result = json.loads((runs / b / "result.json").read_text())
    assert done["accuracy"]["b"] == pytest.approx(result["metrics"]["val"]["accuracy"])
    assert done["accuracy"]["n"] == result["metrics"]["val"]["n"]


def test_one_rule_for_both_whatever_other_means_to_each(tmp_path: Path, cache: Path) -> None:
    """A predicted "other" is right to the run with a class of that name, a dropped answer is no
    question to another: judged by text, neither is."""
    few = ("answers.k=1", "train.epochs=8", "baselines=off")
    of = {
        other: run_of(tmp_path, cache, f"answers.other={other}", *few)
        for other in ("wrong", "class", "drop")
    }
    texts = vqa_cache.open(cache).examples("tiny/test").set_index("question_id")["answer"]
    for a, b in itertools.permutations(of, 2):
        found = compare_accuracy([of[a]], [of[b]], cache)
        assert found.n == 60
        assert found.rule == "right where the text is that of the majority answer"
        for side, name in ((found.a, a), (found.b, b)):
            rows = json.loads((of[name] / "predictions.test.json").read_text())
            by_text = [row["answer"] == texts[row["question_id"]] for row in rows]
            assert side == pytest.approx(np.mean(by_text))
    recorded = {
        name: json.loads((run / "result.json").read_text())["metrics"]["test"]["accuracy"]
        for name, run in of.items()
    }
    assert recorded["class"] > compare_accuracy([of["class"]], [of["wrong"]], cache).a


def test_normalised_answers_are_compared_normalised(tmp_path: Path, cache: Path) -> None:
    """ "Yes." of one run's vocabulary is "yes" in the other's."""
    dataset = small_dataset()
    for name, items in dataset.splits.items():
        dataset.splits[name] = [replace(i, answer=f"{i.answer}.".title()) for i in items]
    build_cache(tmp_path / "cache", dataset)
    plain, normalised = (
        run_of(tmp_path, tmp_path / "cache", f"answers.normalise={how}", *SNAPSHOTS)
        for how in ("none", "vqa")
    )
    found = compare_accuracy([plain], [normalised], tmp_path / "cache")
    assert found.rule.endswith("both normalised")
    for run, value in ((plain, found.a), (normalised, found.b)):
        recorded = json.loads((run / "result.json").read_text())["metrics"]["test"]["accuracy"]
        assert value == pytest.approx(recorded)


def test_questions_that_a_model_did_not_answer_are_not_judged(tmp_path: Path) -> None:
    build_cache(tmp_path / "cache", replace(small_dataset(), broken={1002: "failed"}))
    both = [run_of(tmp_path, tmp_path / "cache", f"seed={n}", *SNAPSHOTS) for n in (0, 1)]
    found = compare_accuracy([both[0]], [both[1]], tmp_path / "cache")
    assert (found.n, found.images) == (55, 11)


def test_an_interval_needs_two_images(tmp_path: Path) -> None:
    build_cache(tmp_path / "cache", small_dataset(test=1))
    both = [run_of(tmp_path, tmp_path / "cache", f"seed={n}", *SNAPSHOTS) for n in (0, 1)]
    with pytest.raises(TrainError, match=r"test: all 5 questions are of one image; expected 2"):
        compare_accuracy([both[0]], [both[1]], tmp_path / "cache")


def test_a_run_and_its_copy_do_not_differ(runs: Path, cache: Path) -> None:
    a, _ = ids(runs)
    found = compare_accuracy([runs / a], [runs / a], cache)
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_different_questions_are_refused(runs: Path, cache: Path, tmp_path: Path) -> None:
    a, b = ids(runs)
    path = runs / b / "predictions.test.json"
    path.write_text(json.dumps(json.loads(path.read_text())[1:]))
    with pytest.raises(TrainError) as error:
        compare_accuracy([runs / a], [runs / b], cache)
    assert str(error.value).startswith(
        f"different question sets: test has 60 questions in {a}, 59 in {b}, 59 of them the same"
    )
    with pytest.raises(TrainError, match=r"no predictions for split 'dev'; it has: test, val"):
        compare_accuracy([runs / a], [runs / b], cache, split="dev")
    result = runs / b / "result.json"
    result.write_text(result.read_text().replace('"dataset": "tiny"', '"dataset": "big"'))
    with pytest.raises(TrainError, match=rf"different question sets: {a} is on tiny, {b} on big"):
        compare_accuracy([runs / a], [runs / b], cache)
    result.unlink()
    with pytest.raises(TrainError, match=f"{b} is not finished: no predictions to compare"):
        compare_accuracy([runs / a], [runs / b], cache)


def test_runs_that_cannot_be_judged_have_settings_and_curves(
    runs: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = ids(runs)
    (runs / b / "result.json").unlink()
    monkeypatch.setattr("sys.argv", ["runs", "compare", a, b, "--runs", str(runs)])
    with pytest.raises(SystemExit) as end:
        command()
    assert end.value.code == 1
    out, err = capsys.readouterr()
    assert "train.epochs" in out
    assert "val accuracy by epoch" in out
    assert err == f"error: {b} is not finished: no predictions to compare\n"


def test_a_cache_with_other_answers_is_refused(runs: Path, tmp_path: Path) -> None:
    dataset = small_dataset()
    dataset.splits["test"] = [replace(item, answer="red") for item in dataset.splits["test"]]
    build_cache(tmp_path / "other", dataset)
    a, b = ids(runs)
    with pytest.raises(TrainError, match=r"by the answers of this cache; expected the cache that"):
        compare_accuracy([runs / a], [runs / b], tmp_path / "other")


# ---------------------------------------------------------------- validate


def validated(runs: Path, cache: Path, *arguments: str) -> list[dict[str, Any]]:
    done = invoke(runs, cache, "validate", *arguments, "--json")
    rows: list[dict[str, Any]] = json.loads(done.stdout)["validated"]
    return rows


def test_validate_evaluates_every_snapshot_as_the_training_did(runs: Path, cache: Path) -> None:
    _, b = ids(runs)
    before = {p: p.read_bytes() for p in runs.rglob("*") if p.is_file() and b in str(p)}
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    rows = validated(runs, cache, b, "--pending")
    assert torch.equal(torch.rand(2), expected), "the caller's generator is left alone"
    names = sorted(path.name for path in (runs / b / "checkpoints").iterdir())
    assert [row["snapshot"] for row in rows] == names
    logged = {
        row["epoch"]: row
        for row in map(json.loads, (runs / b / "metrics.jsonl").read_text().splitlines())
        if "part" in row
    }
    for row in rows:
        assert row["part"] == "val"
        assert set(row["metrics"]) == set(metrics.METRICS)
        assert row["metrics"]["accuracy"] == logged[row["epoch"]]["accuracy"]
        close = pytest.approx(logged[row["epoch"]]["cross_entropy"])
        assert row["metrics"]["cross_entropy"] == close
    assert {p: p.read_bytes() for p in before} == before, "nothing was trained or rewritten"
    query = "SELECT count(*), sum(validated) FROM snapshots s JOIN runs r ON r.id = s.run"
    found = Registry.open(runs).db.execute(f"{query} WHERE r.run = ?", [b]).fetchone()
    assert tuple(found) == (len(names), len(names))
    assert validated(runs, cache, b, "--pending") == [], "none lacks anything now"
    assert len(validated(runs, cache, b)) == len(names), "without --pending all are evaluated"


def test_a_metric_added_later_fills_old_runs(
    runs: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    validated(runs, cache, "--pending")
    assert validated(runs, cache, "--pending") == []
    (tmp_path / "my_metrics.py").write_text(
        "def share_of_no(evaluated):\n    return float((evaluated.predicted == 0).mean())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(metrics.METRICS, "share_of_no", "my_metrics:share_of_no")
    rows = validated(runs, cache, "--pending")
    assert {row["run"] for row in rows} == set(ids(runs))
    key = "metrics.val.share_of_no"
    best = {row["run"]: row["metrics"]["share_of_no"] for row in rows if row["snapshot"] == "best"}
    registry = Registry.open(runs)
    assert {row["run"]: row[key] for row in registry.rows()} == best
    for path in runs.glob("registry.sqlite*"):
        path.unlink()
    registry = Registry.open(runs)
    registry.rebuild()
    assert {row["run"]: row[key] for row in registry.rows()} == best, "the folders have it"


def test_another_cache_is_refused_in_one_line(
    runs: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    build_cache(tmp_path / "other", small_dataset(train=41))
    a, _ = ids(runs)
    places = ("--runs", runs, "--cache", tmp_path / "other")
    [line] = errors_of(monkeypatch, capsys, "validate", a, *places)
    assert line.startswith(f"error: {a}: the cache {tmp_path / 'other'} has data ")
    assert line.endswith("expected the same cache (--cache)")
    assert not (runs / a / "validations.jsonl").exists()


def test_a_damaged_snapshot_does_not_stop_the_other_runs(
    runs: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    a, b = sorted(ids(runs))
    (runs / a / "checkpoints" / "best" / "model.safetensors").unlink()
    [line] = errors_of(
        monkeypatch, capsys, "validate", "--pending", "--runs", runs, "--cache", cache
    )
    assert line.startswith(f"error: checkpoint {runs / a}/checkpoints/best: ")
    assert line.endswith("is missing")
    assert len((runs / b / "validations.jsonl").read_text().splitlines()) >= 2


def test_a_torn_line_is_cut_before_the_next_one(runs: Path, cache: Path) -> None:
    a, _ = ids(runs)
    first = validated(runs, cache, a)
    path = runs / a / "validations.jsonl"
    with path.open("a") as file:
        file.write('{"snapshot": "be')
    assert validated(runs, cache, a) == first
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [{k: v for k, v in row.items() if k != "run"} for row in first * 2]
