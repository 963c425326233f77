"""Training from int8 tables: the numbers of the same rows stored as float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train_inputs import STACKED, load, regions_of
from test_train_small_cache import (
    IMAGE,
    build_cache,
    image_key_of,
    image_row,
    result_of,
    run_of,
    small_dataset,
    write_table,
)  # fmt: skip

import vqa_cache
from train.inputs.batch import gather

TAPS = {False: ("layer3", "layer4"), True: ("tokens8", "tokens32")}


def spec(ragged: bool, exact: bool) -> str:
    return f"timm:resnet50:random=0:tap={TAPS[ragged][exact]}"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """int8 tables of grids and of regions, and each again as the float32 that it is read as."""
    folder = tmp_path_factory.mktemp("quantised") / "cache"
    opened = build_cache(folder, small_dataset())
    table = opened.find_table(IMAGE, "image")
    images = sorted({i for items in small_dataset().splits.values() for it in items
                     for i in it.images})  # fmt: skip
    keys = [image_key_of(i) for i in images]
    assert len(keys) == len(table)
    for ragged in (False, True):
        rows: list[Any] = [regions_of(i) if ragged else image_row(i, 4) for i in images]
        write_table(opened, spec(ragged, False), "image", keys, rows, ragged=ragged, dtype="int8")
        made = vqa_cache.open(folder).find_table(spec(ragged, False), "image")
        exact = [made[key].numpy() for key in keys]
        write_table(opened, spec(ragged, True), "image", keys, exact, ragged=ragged,
                    dtype="float32")  # fmt: skip
        assert not np.array_equal(np.concatenate(exact), np.concatenate(rows))
    return folder


@pytest.mark.parametrize("how", ["read", "map"])
@pytest.mark.parametrize("kind", ["none", "zscore"])
@pytest.mark.parametrize(("ragged", "looking"), [(False, False), (False, True), (True, True)])
def test_a_batch_has_the_numbers_of_the_widened_rows(
    tmp_path: Path, cache: Path, how: str, kind: str, looking: bool, ragged: bool
) -> None:
    given = []
    for exact in (False, True):
        chosen = (f"features.image={spec(ragged, exact)}", f"features.normalise={kind}",
                  f"load={how}")  # fmt: skip
        data = load(tmp_path, cache, *chosen, **({"attention": STACKED} if looking else {}))
        part = data.parts["train"]
        batch = gather(part, data.tables, torch.arange(0, len(part), 3))["image"]
        given.append(batch.values)
    assert torch.equal(*given)


@pytest.mark.parametrize("how", ["read", "map"])
def test_a_training_is_that_of_the_widened_rows(tmp_path: Path, cache: Path, how: str) -> None:
    runs = []
    for exact in (False, True):
        folder = tmp_path / str(exact)
        folder.mkdir()
        chosen = (f"features.image={spec(False, exact)}", f"load={how}", "train.epochs=1")
        runs.append(run_of(folder, cache, *chosen))
    assert result_of(runs[0])["metrics"] == result_of(runs[1])["metrics"]
    first, second = ((run / "metrics.jsonl").read_bytes() for run in runs)
    assert first == second
