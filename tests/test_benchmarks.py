"""The benchmarks of stage 2 in a short form: they run, and their figures are what they say."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from test_train_cuda_graph import repeat
from test_train_small_cache import build_cache, small_dataset, write_experiment

import vqa_cache
from benchmarks import gpu, gpu_encoders
from benchmarks import sweep as sweep_benchmark
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.inputs.scale_cache import DATASET, make_scale_cache
from benchmarks.inputs.sizes import VQA2, Sizes
from benchmarks.measuring.report import Report
from benchmarks.measuring.turns import median, ratio, take_turns
from benchmarks.sweep import Spent
from benchmarks.train import bench as train_bench
from benchmarks.train import command as train_benchmark
from benchmarks.train import first_step
from train.config.files import load_experiment
from train.engine import cuda_graph
from train.engine.data import load_data
from train.inputs.normaliser import Normaliser
from train.inputs.resident import ResidentTable
from train.loop.fit import fit
from train.loop.training_loop import Watch
from vqa_cache.system.device import CPU

SMALL = Sizes({"train": 300, "val": 60}, {"train": 4000, "val": 500}, 400, 50, 6, 10)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small scale cache."""
    path = tmp_path_factory.mktemp("scale") / "cache"
    make_scale_cache(path, SMALL)
    return path


def test_the_scale_cache_has_the_size_and_labels_that_can_be_learned(
    cache: Path, tmp_path: Path
) -> None:
    opened = vqa_cache.open(cache)
    train = opened.examples(f"{DATASET}/train")
    assert (len(train), train["image_key"].nunique()) == (4000, 300)
    assert train["answers"].map(len).eq(10).all()
    assert train["question"].nunique() > 350
    right = train.apply(lambda row: row["answers"].count(row["answer"]), axis=1)
    assert 7.5 < right.mean() < 8.5
    overrides = [*train_bench.FEATURES, "train.epochs=15", "train.precision=fp32"]
    experiment = load_experiment("mlp_answers", [*overrides, "train.batch_size=100"])
    data = load_data(experiment, opened)
    watch = Watch(Console(quiet=True))
    fitted = fit(
        experiment.config, data, modalities=data.tables, what="", folder=tmp_path, watch=watch
    )
    most_frequent = train["answer"].value_counts(normalize=True).iloc[0]
    assert fitted.score.accuracy > most_frequent + 0.15


def test_the_full_size_is_that_of_vqa_v2() -> None:
    assert VQA2.images == {"train": 82_783, "val": 40_504}
    assert VQA2.questions == {"train": 443_757, "val": 214_354}


def test_every_figure_of_stage_2_is_a_number(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_bench, "TURN_SECONDS", 0.01)
    monkeypatch.setattr(first_step, "STARTS", 1)
    monkeypatch.setattr(train_benchmark, "AGAINST_LIMIT", (("mlp1536", 64), ("cosine", 512)))
    line = ["train", "--cache", str(cache), "--rounds", "1", "--no-compile", "--only", "steps"]
    done = CliRunner().invoke(main, [*line, "--json"], catch_exceptions=False)
    figures = json.loads(done.stdout)
    for key in ("mlp1536_b64_vs_limit", "cosine_b512_vs_gemm", "linear_b5000_vs_journal_loop",
                "linear_b400_vs_tensordataset", "load_vs_memcpy", "load_vs_torch_load_list",
                "validation_share", "metrics_share", "snapshot_share", "lanes32_small",
                "first_step_seconds"):  # fmt: skip
        assert math.isfinite(figures[key]), key
        assert figures[key] > 0, key
    assert figures["precision"] in ("fp32", "bf16")


def test_a_sweep_is_measured_against_a_process_for_each_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_cache(tmp_path / "cache", small_dataset())
    monkeypatch.setattr(sweep_benchmark, "FIXED", (str(write_experiment(tmp_path)),))
    monkeypatch.setattr(sweep_benchmark, "RATES", ("1e-3", "1e-2"))
    monkeypatch.setattr(sweep_benchmark, "DECAYS", ("0.01",))
    real, trained = sweep_benchmark.run, list[Spent]()

    def run(module: str, *arguments: Any, **more: Any) -> Spent:
        """The first of the peer's processes stands for the others."""
        if module == "train.sweep" or not trained:
            found = real(module, *arguments, **more)
            trained.extend([found] if module == "train" else [])
            return found
        return trained[0]

    def one_after_another(cache: Path, runs: Path, trials: Sequence[Sequence[str]]) -> Spent:
        spent = sweep_benchmark.added(sweep_benchmark.run_trial(cache, runs, one) for one in trials)
        return Spent(spent.imports, spent.rest + 1)  # the slower way

    monkeypatch.setattr(sweep_benchmark, "run", run)
    monkeypatch.setattr(sweep_benchmark, "run_pairs", one_after_another)
    line = ["sweep", "--cache", str(tmp_path / "cache"), "--rounds", "1", "--json"]
    done = CliRunner().invoke(main, line, catch_exceptions=False)
    figures = json.loads(done.stdout)
    assert (figures["trials"], figures["processes_at_a_time"]) == (2, 1)
    assert figures["sweep_vs_process_per_trial"] > 0
    assert figures["processes_seconds"] == min(
        figures["processes_seconds_one_at_a_time"], figures["processes_seconds_two_at_a_time"]
    )
    assert min(figures["import_seconds"].values()) > 0
    assert figures["winners_seconds"] > 0
    assert 0 < figures["best_accuracy"] <= 1


def test_turns_alternate_and_the_median_of_the_rounds_counts() -> None:
    order: list[str] = []

    def work(name: str) -> float:
        order.append(name)
        return 1.0

    speeds = take_turns({"a": lambda: work("a"), "b": lambda: work("b")}, rounds=3)
    assert order == ["a", "b"] * 4
    assert [len(found) for found in speeds.values()] == [3, 3]
    known = {"a": [1.0, 4.0, 90.0], "b": [2.0, 2.0, 3.0]}
    assert ratio(known, "a", "b") == 2.0
    assert median(known, "a") == 4.0


def test_an_unknown_benchmark_is_refused_with_the_known_ones() -> None:
    done = CliRunner().invoke(main, ["nope"])
    assert done.exit_code == 2
    listed = CliRunner().invoke(main, ["--help"]).output
    assert all(name in listed for name in BENCHMARKS)


def test_encoders_beside_their_limits(libraries: None) -> None:
    work = gpu_encoders.Work({"resnet": "timm:test_resnet:random=0:size=32"}, images=6, rounds=1)
    report = Report()
    gpu_encoders.measure(report, CPU, work)
    figures = report.figures
    for key in ("per_second", "forward_per_second", "decoding_per_second", "vs_limit"):
        assert figures[f"resnet_{key}"] > 0
    assert figures["resnet_batch_size"] == 16
    assert " items/s on cpu; " in figures["resnet_bottleneck"]


def test_the_gpu_benchmark_with_a_stand_in_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it but captures and the count of synchronisations, on the CPU."""
    monkeypatch.setattr(cuda_graph, "capture", repeat)
    monkeypatch.setattr(gpu, "synchronisations", lambda run: run() * 0)
    work = gpu.Work(
        batch_sizes=(256, 64),
        hidden=16,
        steps=4,
        rounds=1,
        probe=64,
        copied=1 << 16,
        trials=6,
        lanes=4,
        epochs=2,
        sweep_batch=100,
        sweep_hidden=16,
    )
    figures = gpu.measure(CPU, SMALL, work)
    assert figures["graph_losses_difference"] == figures["graph_weights_difference"] == 0
    for key in ("b256_samples_per_second", "b64_samples_per_second", "sweep_seconds",
                "sweep_vs_process_per_trial"):  # fmt: skip
        assert figures[key] > 0, key
    assert figures["b256_floor_samples_per_second"] >= figures["b64_floor_samples_per_second"]
    assert figures["sweep_best_accuracy"] > 0.9
    assert figures["process_accuracy"] > 0.9


def test_the_floor_counts_products_and_traffic() -> None:
    """4 samples of head 6 -> 5 -> 3: forward and weights of both layers, input of the second."""
    peak = gpu.Peak(flops=1.0, bandwidth=1e30)
    row = ResidentTable(torch.zeros(1, 6), np.zeros(1, np.int64), Normaliser("none"))
    data = SimpleNamespace(tables={"x": row})
    assert gpu.floor_seconds(data, 4, [6, 5, 3], peak) == 2 * 4 * (2 * (30 + 15) + 15)  # type: ignore[arg-type]
    moved = (30 + 15 + 5 + 3) * gpu.OPTIMIZER_BYTES + 2 * 4 * 6 * 4
    peak = gpu.Peak(flops=1e30, bandwidth=1.0)
    assert gpu.floor_seconds(data, 4, [6, 5, 3], peak) == moved  # type: ignore[arg-type]
