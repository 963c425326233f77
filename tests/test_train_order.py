"""Runs over a large table: the same bytes resident and mapped, interrupted or not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import vqa_cache
from benchmarks.flat import FEATURES
from benchmarks.inputs import scale_cache
from benchmarks.inputs.flat_cache import FlatSizes, make_flat_cache
from benchmarks.inputs.scale_cache import WIDTH
from benchmarks.measuring.trainings import begin_training
from train.config.files import load_experiment
from train.config.schema import Experiment
from train.engine.data import load_data
from train.engine.outputs import run_model
from train.inputs.large.blocks import BlockSizes
from train.inputs.large.mapped_rows import MappedRows
from train.inputs.load import TrainingData
from train.inputs.order import SampleOrder, along
from train.inputs.single_pass import single_pass
from train.loop.fit import Fitted, fit
from train.loop.training_loop import Watch
from train.sweep.pack import train_pack
from train.trainer import tables_told
from vqa_cache.errors import DamagedError
from vqa_cache.system.signals import Stopped

FLAT = FlatSizes(train=600, val=120, images=40, answers=6)
ROW_BYTES = WIDTH * 2
SIZES = BlockSizes(large=100 * ROW_BYTES, window=90 * ROW_BYTES, block=7 * ROW_BYTES)
FULL = BlockSizes(large=2**40)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small flat cache of many shards; images (40 rows) are not large, questions (720) are."""
    path = tmp_path_factory.mktemp("flat") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale_cache, "ROWS_PER_SHARD", {"image": 16, "text": 64})
        make_flat_cache(path, FLAT)
    return path


def experiment(load: str, *overrides: str) -> Experiment:
    settings = ["train.batch_size=32", "train.epochs=3", "train.precision=fp32"]
    return load_experiment("linear_answers", [*FEATURES, *settings, f"load={load}", *overrides])


def data_of(cache: Path, load: str, *overrides: str, sizes: BlockSizes = SIZES) -> TrainingData:
    return load_data(experiment(load, *overrides), vqa_cache.open(cache), sizes=sizes)


def trained(
    cache: Path, folder: Path, load: str, *overrides: str, stop_at: int = 0, **sizes: Any
) -> Fitted:
    asked = 0

    def stopping() -> bool:
        nonlocal asked
        asked += 1
        return asked == stop_at

    data = data_of(cache, load, *overrides, **sizes)
    return fit(
        experiment(load, *overrides).config,
        data,
        modalities=data.tables,
        what="",
        folder=folder,
        watch=Watch(Console(quiet=True), stopping=stopping),
    )


def written(folder: Path) -> dict[str, bytes]:
    """What a training left: its metrics and its snapshots."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("normalise", ["none", "l2", "zscore"])
def test_mapped_windows_and_resident_rows_come_to_the_same_bytes(
    tmp_path: Path, cache: Path, normalise: str
) -> None:
    for load in ("map", "read"):
        trained(cache, tmp_path / load, load, f"features.normalise={normalise}")
    mapped, resident = written(tmp_path / "map"), written(tmp_path / "read")
    assert mapped == resident
    assert "metrics.jsonl" in mapped


def test_what_is_not_large_is_shuffled_in_full(tmp_path: Path, cache: Path) -> None:
    for load in ("map", "read"):
        trained(cache, tmp_path / load, load, sizes=FULL)
    assert written(tmp_path / "map") == written(tmp_path / "read")
    trained(cache, tmp_path / "windows", "map")
    assert written(tmp_path / "map") != written(tmp_path / "windows")


@pytest.mark.parametrize("stop_at", [3, 11, 25])
def test_a_run_that_is_stopped_goes_on_in_its_window_to_the_same_bytes(
    tmp_path: Path, cache: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = "train.evaluate_every=0.7"  # evaluations read other windows in the midst of epochs
    trained(cache, tmp_path / "whole", "map", often)
    with pytest.raises(Stopped):
        trained(cache, tmp_path / "parts", "map", often, stop_at=stop_at)
    trained(cache, tmp_path / "parts", "map", often)
    whole, parts = written(tmp_path / "whole"), written(tmp_path / "parts")
    assert whole["metrics.jsonl"] == parts["metrics.jsonl"]
    weights = [name for name in whole if name.endswith("model.safetensors")]
    assert weights
    assert all(whole[name] == parts[name] for name in weights if name in parts)


def test_statistics_training_and_evaluation_read_windows_and_no_single_rows(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pick = MappedRows.index_select

    def refuse(rows: MappedRows, dim: int, index: torch.Tensor) -> torch.Tensor:
        assert len(rows) == FLAT.images, "a question was read on its own"
        return pick(rows, dim, index)

    monkeypatch.setattr(MappedRows, "index_select", refuse)
    zscore = "features.normalise=zscore"
    data = data_of(cache, "map", zscore)
    fitted = fit(
        experiment("map", zscore, "train.evaluate_every=0.7").config,
        data,
        modalities=data.tables,
        what="",
        folder=tmp_path,
        watch=Watch(Console(quiet=True)),
    )
    for part in data.parts.values():
        run_model(fitted.model, part, data.tables)


def test_every_example_is_trained_on_once_an_epoch_and_evaluated_once(cache: Path) -> None:
    data = data_of(cache, "map")
    part = data.parts["train"]
    examples = torch.arange(0, len(part), 2)
    order = SampleOrder(part, data.tables, examples, batch_size=len(examples), data_seed=0)
    epochs = [order.batch(epoch, 0) for epoch in range(2)]
    assert [sorted(epoch.tolist()) for epoch in epochs] == [examples.tolist()] * 2
    assert not torch.equal(*epochs)
    passed = torch.cat([span for span, _ in single_pass(part, data.tables, 50, examples)])
    assert sorted(passed.tolist()) == examples.tolist()
    assert part.items["text"].rows[passed].diff().min() > 0, "in the order of the rows"
    assert list(single_pass(part, data.tables, 50, examples[:0])) == []


def test_images_of_these_trainings_are_shared(cache: Path, tmp_path: Path) -> None:
    """So what is said here of stopping and of mapped rows holds for shared ones."""
    training = begin_training(experiment("map").config, data_of(cache, "map"), tmp_path)
    training.log.close()
    assert training.sharing.names == {"image"}


def test_of_two_large_tables_the_larger_leads_and_the_other_is_said_to_be_mapped(
    cache: Path, tmp_path: Path
) -> None:
    both = BlockSizes(large=0, window=SIZES.window, block=SIZES.block)
    data = data_of(cache, "map", sizes=both)
    led = along(data.parts["train"], data.tables)
    assert led is not None
    assert led.table is data.tables["text"]
    assert tables_told(data) == (
        "text rows read ahead from files, shuffled in 10 windows; "
        "image rows mapped from files, the page cache holds what it can"
    )
    resident = data_of(cache, "read", sizes=both)
    assert tables_told(resident) == "text rows in memory, shuffled in 10 windows"
    assert tables_told(data_of(cache, "read", sizes=FULL)) == "tables in memory"
    for load in ("map", "read"):
        trained(cache, tmp_path / load, load, "train.epochs=1", sizes=both)
    assert written(tmp_path / "map") == written(tmp_path / "read")


def test_lanes_are_trained_on_the_same_order(cache: Path) -> None:
    found = []
    for load in ("map", "read"):
        configs = [experiment(load, f"optimizer.lr={lr}").config for lr in ("1e-3", "1e-2")]
        watch = Watch(Console(quiet=True))
        found.append(train_pack(configs, data_of(cache, load), pruner="none", what="", watch=watch))
    assert found[0] == found[1]


def test_files_that_vanish_while_training_are_one_clear_error(tmp_path: Path, cache: Path) -> None:
    own = tmp_path / "cache"
    shutil.copytree(cache, own)
    data = data_of(own, "map")
    for path in own.glob("tables/text/*/*/*/shards/*"):
        path.unlink()
    with pytest.raises(DamagedError, match=r"\.h5: missing; mend it: .*--repair") as raised:
        fit(
            experiment("map").config,
            data,
            modalities=data.tables,
            what="",
            folder=tmp_path / "run",
            watch=Watch(Console(quiet=True)),
        )
    assert "\n" not in str(raised.value)


def test_statistics_are_those_of_the_training_rows(cache: Path) -> None:
    data = data_of(cache, "map", "features.normalise=zscore")
    table = data.tables["text"]
    rows = table.gather(data.parts["train"].items["text"]).numpy()
    assert np.allclose(rows.mean(axis=0), 0, atol=1e-3)
    assert np.allclose(rows.std(axis=0), 1, atol=1e-2)
