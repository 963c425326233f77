"""Closed-form heads against a direct solution, and on a small real cache."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from test_train_small_cache import build_cache, small_dataset, write_experiment

from train.config.check import check
from train.config.schema import Experiment
from train.engine.data import load_data
from train.engine.ridge import PATH, Column, Inputs, RidgePath, moments
from train.inputs.load import TrainingData
from train.ridge.command import METHODS, command, fit_head

ROOT = Path(__file__).parent.parent


def direct(
    x: np.ndarray, truth: np.ndarray, classes: int, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias by solving the normal equations with an extra, unpunished column of 1."""
    design = np.hstack([x, np.ones((len(x), 1))])
    punished = np.diag([strength] * x.shape[1] + [0.0])
    solved = np.linalg.solve(design.T @ design + punished, design.T @ np.eye(classes)[truth])
    return solved[:-1], solved[-1]


def test_every_lambda_is_the_direct_solution() -> None:
    draw = np.random.default_rng(0)
    x, truth = draw.normal(3, 2, (90, 7)), draw.integers(0, 4, 90)
    x[:, 6] = x[:, 5]  # a direction without variance
    exact = torch.from_numpy(x)
    repeated = torch.from_numpy(draw.integers(0, 30, 90))
    exact[:, :3] = exact[repeated][:, :3]  # the first column has 30 distinct rows
    x = exact.numpy()
    distinct, number = exact[:, :3].unique(dim=0, return_inverse=True)
    columns = [
        Column(lambda rows: distinct[rows], len(distinct), 3, number),
        Column(lambda rows: exact[rows, 3:], 90, 4, torch.arange(90)),
    ]
    path = RidgePath(moments(columns, torch.from_numpy(truth), 5))  # class 4 never occurs
    assert len(path.lambdas) == len(PATH)
    for strength in path.lambdas:
        weights, bias = direct(x, truth, 5, strength)
        found_weights, found_bias = path.weights(strength)
        np.testing.assert_allclose(found_weights.numpy(), weights, atol=1e-8)
        np.testing.assert_allclose(found_bias.numpy(), bias, atol=1e-8)
        predicted = Inputs(columns).predictions(found_weights, found_bias)
        assert predicted.tolist() == (x @ weights + bias).argmax(axis=1).tolist()


@pytest.mark.parametrize("pairs", [False, True], ids=["one image", "several images"])
def test_lambda_is_chosen_on_the_selection_part(tmp_path: Path, pairs: bool) -> None:
    dataset = small_dataset()
    if pairs:
        items = dataset.splits["train"]
        items += [replace(item, images=(*item.images, 3)) for item in items[:40]]
    opened = build_cache(tmp_path / "cache", dataset)
    image, text = (table.name for table in opened.tables.values())
    values = {
        "features": {"dataset": "tiny", "image": image, "text": text, "normalise": "none"},
        "head": {"name": "linear"},
        "optimizer": {"name": "adamw", "lr": 1.0},
    }
    data = load_data(Experiment("ridge", check(values), ""), opened)
    head = fit_head(data, image, text)

    def rows(name: str) -> tuple[np.ndarray, np.ndarray]:
        part = data.parts[name]
        pieces = [table.gather(part.items[m]).clone() for m, table in data.tables.items()]
        return torch.cat(pieces, dim=1).double().numpy(), part.truth.numpy()

    x, truth = rows("train")
    val, val_truth = rows("val")
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T, bias=True) * len(x))
    expected = []
    for share in PATH:
        weights, bias = direct(x, truth, len(data.vocabulary), share * eigenvalues.mean())
        expected.append(((val @ weights + bias).argmax(axis=1) == val_truth).mean())
    np.testing.assert_allclose(head.path, expected)
    assert head.accuracy == max(expected)
    assert head.strength == max(
        s for s, a in zip(PATH, expected, strict=True) if a == max(expected)
    )


def test_tables_and_pairs_are_ranked(cache: Path) -> None:
    line = ["features.dataset=tiny", "--cache", str(cache)]
    done = CliRunner().invoke(command, [*line, "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)
    kinds = {(bool(head["image"]), bool(head["text"])) for head in found["heads"]}
    assert kinds == {(True, False), (False, True), (True, True)}
    accuracies = [head["accuracy"] for head in found["heads"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert found["reasons"] == {}
    assert len(found["strengths"]) == len(found["heads"][0]["path"])
    assert {head["width"] for head in found["heads"]} == {8, 16}
    done = CliRunner().invoke(command, line, catch_exceptions=False)
    assert "heads by ridge" in done.stdout


def test_widths_show_what_narrower_rows_cost(cache: Path) -> None:
    line = ["features.dataset=tiny", "--cache", str(cache), "--json"]
    whole = json.loads(CliRunner().invoke(command, line).stdout)["heads"]
    done = CliRunner().invoke(command, [*line, "--widths", "2,4"], catch_exceptions=False)
    found = json.loads(done.stdout)["heads"]
    assert sorted(head["width"] for head in found) == [2, 2, 4, 4, 4, 8, 8, 8, 16]
    assert [head for head in found if head in whole] == whole
    refused = CliRunner().invoke(command, [*line, "--widths", "2,0"])
    assert "'2,0': expected widths of at least 1" in refused.stderr


def test_closed_form_heads_read_fp32_whatever_pays_here(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is multiplied in bf16, so nothing is rounded to it on a processor that has it."""
    monkeypatch.setattr("vqa_cache.system.bf16_gain.pays_on_cpu", lambda *_: True)
    seen = []

    def look(data: TrainingData, *rest: Any) -> Any:
        seen.append((data.precision, {table.compute_type for table in data.tables.values()}))
        return fit_head(data, *rest)

    monkeypatch.setitem(METHODS, "ridge", replace(METHODS["ridge"], fit=look))
    line = ["features.dataset=tiny", "--cache", str(cache), "--json"]
    CliRunner().invoke(command, line, catch_exceptions=False)
    assert seen == [("fp32", {torch.float32})] * 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["train.ridge", "train.lr_find"])
def test_a_signal_ends_a_command_with_one_line(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    number: signal.Signals,
) -> None:
    def load_and_stop(*arguments: Any, **options: Any) -> TrainingData:
        os.kill(os.getpid(), number)
        return load_data(*arguments, **options)

    experiment = [] if name == "train.ridge" else [str(write_experiment(tmp_path))]
    words = [*experiment, "features.dataset=tiny", "--cache", str(cache)]
    monkeypatch.setattr("train.engine.data.load_data", load_and_stop)
    monkeypatch.setattr(sys, "argv", [name, *words])
    for loaded in (name, f"{name}.__main__"):
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(name, run_name="__main__")
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert ended.value.code == 143
    assert capsys.readouterr().err.splitlines()[-1] == "stopped by a signal; nothing is written"


def test_what_cannot_be_ranked_is_told(cache: Path) -> None:
    done = CliRunner().invoke(command, ["head.name=mlp", "--cache", str(cache)])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: head.name=mlp: ridge takes features.dataset, ")
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "train.ridge",
            "features.dataset=other",
            "--cache",
            str(cache),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: no table can be trained on: ")
    assert ended.stderr.count("no split other/train; the cache has: tiny/test, tiny/train") == 1
    assert "add it with: python -m precompute --dataset other --image " in ended.stderr
