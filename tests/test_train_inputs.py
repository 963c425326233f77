"""Grids, tokens and several tables as inputs: batches, orders, refusals, whole trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train_small_cache import (
    IMAGE,
    TEXT,
    Item,
    SmallDataset,
    build_cache,
    digests,
    image_key_of,
    items_of,
    result_of,
    run_of,
    small_dataset,
    write_experiment,
    write_table,
)

import vqa_cache
from train.config.files import load_experiment
from train.engine.build import build_model, build_step, trainable
from train.engine.data import load_data
from train.errors import ConfigError, TrainError
from train.inputs.batch import batches_of, gather
from train.inputs.load import TrainingData
from train.inputs.order import SampleOrder
from train.inputs.positions import PositionTable
from train.inputs.specification import Grid, Tokens

TOKENS = "imported:regions:tap=features"
BOXES = "imported:regions:tap=boxes"
POOLED = "timm:resnet50:random=0"
FINER = "timm:resnet34:random=0:tap=layer2:grid=3"
STACKED = 'name = "stacked"\nhops = 1\nhidden = 8'


def regions_of(image: int) -> np.ndarray:
    """One to four regions of width 3; image 2 has none."""
    count = 0 if image == 2 else 1 + image % 4
    return np.random.default_rng(image).normal(0, 1, (count, 3)).astype(np.float16)


def boxes_of(image: int) -> np.ndarray:
    return np.random.default_rng(image).uniform(0, 1, (len(regions_of(image)), 4)).astype("f2")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small cache with regions, boxes, a pooled table and a finer grid beside its own."""
    folder = tmp_path_factory.mktemp("inputs") / "cache"
    opened = build_cache(folder, small_dataset())
    images = sorted(
        {i for items in small_dataset().splits.values() for it in items for i in it.images}
    )
    keys = [image_key_of(i) for i in images]
    write_table(opened, TOKENS, "image", keys, [regions_of(i) for i in images], ragged=True)
    write_table(opened, BOXES, "image", keys, [boxes_of(i) for i in images], ragged=True)
    draw = np.random.default_rng(0)
    write_table(opened, POOLED, "image", keys, [draw.normal(size=5).astype("f2") for _ in images])
    finer = [draw.normal(size=(9, 4)).astype("f2") for _ in images]
    write_table(opened, FINER, "image", keys, finer)
    return folder


def load(folder: Path, cache: Path, *overrides: str, **sections: str) -> TrainingData:
    path = write_experiment(folder, **sections)
    return load_data(load_experiment(str(path), overrides), vqa_cache.open(cache))


@pytest.mark.parametrize("how", ["read", "map"])
@pytest.mark.parametrize("kind", ["none", "l2", "zscore"])
def test_tokens_of_a_batch_are_filled_up_and_masked(
    tmp_path: Path, cache: Path, how: str, kind: str
) -> None:
    chosen = (f"features.image={TOKENS}", f"features.normalise={kind}", f"load={how}")
    data = load(tmp_path, cache, *chosen, attention=STACKED)
    table = data.tables["image"]
    assert table.specification == Tokens(3, 4, boxes=True)
    assert table.resident == (how == "read")
    part = data.parts["train"]
    examples = torch.arange(0, len(part), 3)
    batch = gather(part, data.tables, examples)["image"]
    images = [small_dataset().splits["train"][part.joined.kept[i]].images[0] for i in examples]
    assert batch.mask is not None
    for place, image in enumerate(images):
        raw = torch.from_numpy(regions_of(image)).float()
        assert int(batch.mask[place].sum()) == len(raw)
        expected = table.normaliser(raw.clone())
        assert torch.allclose(batch.values[place, : len(raw)], expected, atol=1e-6)
        assert not batch.values[place, len(raw) :].any()
        assert batch.boxes is not None
        expected = torch.from_numpy(boxes_of(image)).float()
        assert torch.equal(batch.boxes[place, : len(raw)], expected)
    assert table.empty == 1, "image 2 has no region"


def test_statistics_of_tokens_are_those_of_the_training_part(tmp_path: Path, cache: Path) -> None:
    chosen = (f"features.image={TOKENS}", "features.normalise=zscore")
    data = load(tmp_path, cache, *chosen, attention=STACKED)
    part = data.parts["train"]
    items = small_dataset().splits["train"]
    images = sorted({items[i].images[0] for i in part.joined.kept})
    every = np.concatenate([regions_of(i) for i in images]).astype(np.float64)
    mean = data.tables["image"].normaliser.mean
    assert mean is not None
    assert np.allclose(mean.numpy(), every.mean(axis=0), atol=1e-5)


def test_several_images_are_one_row_of_positions(tmp_path: Path) -> None:
    items = [
        Item((i, i + 1), it.question, it.answer) for i in range(0, 20, 2) for it in items_of([i])
    ]
    dataset = SmallDataset({"train": items, "test": items_of([30, 31])})
    build_cache(tmp_path / "cache", dataset)
    data = load(tmp_path, tmp_path / "cache", attention=STACKED)
    assert isinstance(data.tables["image"], PositionTable)
    single, pair = data.parts["test"], data.parts["train"]
    assert gather(pair, data.tables, torch.arange(4))["image"].values.shape == (4, 4, 4)
    assert gather(single, data.tables, torch.arange(2))["image"].values.shape == (2, 2, 4)


@pytest.mark.parametrize("size", [7, 16, 1000])
def test_a_batch_by_image_holds_all_questions_of_its_images(
    tmp_path: Path, cache: Path, size: int
) -> None:
    data = load(tmp_path, cache)
    part, examples = data.parts["train"], trainable(data)
    given: dict[str, Any] = {"batch_size": size, "data_seed": 0, "by": "by_image"}
    order = SampleOrder(part, data.tables, examples, **given)
    image = part.joined.image
    epochs = []
    for epoch in range(2):
        batches = [order.batch(epoch, number) for number in range(order.steps)]
        epochs.append(torch.cat(batches))
        assert sorted(epochs[-1].tolist()) == examples.tolist()
        of_images = [set(image[batch].tolist()) for batch in batches]
        assert sum(map(len, of_images)) == len(set(image[examples].tolist()))
        assert min(map(len, batches)) >= order.smallest
    assert size == 1000 or not torch.equal(*epochs)
    again = SampleOrder(part, data.tables, examples, **given)
    assert torch.equal(again.batch(1, 0), order.batch(1, 0)), "a function of seed and epoch"


@pytest.mark.parametrize("image", [IMAGE, TOKENS])
@pytest.mark.parametrize("attention", ["stacked", "bottom_up", "multi_query", ""])
def test_the_step_by_image_is_the_plain_step_on_the_same_batch(
    tmp_path: Path, cache: Path, image: str, attention: str
) -> None:
    if not attention and image == TOKENS:
        pytest.skip("tokens need an attention")
    sections = {"attention": f'name = "{attention}"'} if attention else {}
    data = load(tmp_path, cache, f"features.image={image}", **sections)
    config = load_experiment(str(write_experiment(tmp_path, **sections))).config
    part = data.parts["train"]
    examples = torch.from_numpy(part.joined.image).argsort(stable=True)[:30]
    gradients, losses = [], []
    for shared in ([], ["image"]):
        model = build_model(config, data, data.tables)
        step = build_step(config, data, model, total_steps=10)
        batch = batches_of(part, part.truth, data.tables, shared)(examples)
        assert (batch[0]["image"].index is not None) == bool(shared)
        if shared:
            assert len(batch[0]["image"].values) < len(examples)
        losses.append(step(*batch, 0))
        gradients.append(step.gradients())
    assert torch.allclose(*losses, rtol=1e-5)
    for plain, own in zip(*gradients, strict=True):
        assert torch.allclose(plain, own, rtol=1e-5, atol=1e-6)


def test_tables_side_by_side_are_the_numbers_of_one_wider_table(
    tmp_path: Path, cache: Path
) -> None:
    path = write_experiment(tmp_path)
    both = f'features.image=["{IMAGE}", "{POOLED}"]'
    data = load_data(load_experiment(str(path), [both]), vqa_cache.open(cache))
    batch = gather(data.parts["train"], data.tables, torch.arange(6))
    assert list(batch) == ["image", "image 2", "text"]
    assert [batch[name].values.shape[1] for name in batch] == [8, 5, 8]
    run = run_of(tmp_path, cache, both, "train.epochs=1")
    assert result_of(run)["metrics"]["test"]["n"] > 0


@pytest.mark.parametrize("order", ["full", "by_image"])
@pytest.mark.parametrize("image", [IMAGE, TOKENS])
def test_a_training_with_attention_ends_with_a_result_and_goes_on_to_the_same_bytes(
    tmp_path: Path, cache: Path, image: str, order: str
) -> None:
    chosen = (f"features.image={image}", f"train.order={order}", "train.epochs=2")
    run = run_of(tmp_path, cache, "baselines=on", *chosen, attention=STACKED)
    result = result_of(run)
    assert 0 <= result["metrics"]["test"]["accuracy"] <= 1
    for name in ("image_only", "light_probe"):
        assert result["baselines"][name]["test"]["n"] == result["metrics"]["test"]["n"]
    again = tmp_path / "again"
    again.mkdir()
    assert digests(run_of(again, cache, "baselines=on", *chosen, attention=STACKED)) == digests(run)


@pytest.mark.parametrize(
    ("overrides", "sections", "told"),
    [
        ([f"features.image={POOLED}"], {"attention": STACKED},
         r"attention 'stacked' reads grid or tokens, found a vector of 5 in image/.*; name a tap "
         r"with grid=g; or tap=tokens, or imported regions in features.image"),
        ([f"features.image={TOKENS}"], {},
         r"table image/.* is ragged .* nothing reads its tokens; name a \[attention\], or a table "
         r"whose rows have one shape: tap=cls, mean or grid="),
        ([f'features.image=["{IMAGE}", "{FINER}"]'], {"attention": STACKED},
         r"tables side by side need one raster, found .* is a grid of 1x2 positions of 4, .* is a "
         r"grid of 3x3 positions of 4"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line_with_both_sides(
    tmp_path: Path, cache: Path, overrides: list[str], sections: dict[str, str], told: str
) -> None:
    with pytest.raises(TrainError, match=told):
        load(tmp_path, cache, *overrides, **sections)


def test_boxes_outside_the_image_are_counted_and_refused(tmp_path: Path) -> None:
    opened = build_cache(tmp_path / "cache", small_dataset(6, 2))
    images = [*range(6), 1000, 1001]
    keys = [image_key_of(i) for i in images]
    write_table(opened, TOKENS, "image", keys, [regions_of(i) for i in images], ragged=True)
    wrong = [boxes_of(i) * 600 for i in images]
    write_table(opened, BOXES, "image", keys, wrong, ragged=True)
    with pytest.raises(TrainError, match=r"of [0-9]+ boxes lie outside 0 to 1; expected x, y"):
        load(tmp_path, tmp_path / "cache", f"features.image={TOKENS}", attention=STACKED)


def test_a_grid_has_the_positions_of_its_table(tmp_path: Path, cache: Path) -> None:
    data = load(tmp_path, cache, f"features.image={FINER}", attention=STACKED)
    assert data.tables["image"].specification == Grid(3, 3, 4)
    table = vqa_cache.open(cache).find_table(FINER, "image")
    batch = gather(data.parts["train"], data.tables, torch.tensor([4]))["image"]
    key = image_key_of(
        small_dataset().splits["train"][data.parts["train"].joined.kept[4]].images[0]
    )
    assert torch.equal(batch.values[0], table[key.hex()].float())


def test_text_tables_in_a_list_are_named(tmp_path: Path, cache: Path) -> None:
    data = load(tmp_path, cache, f'features.text=["{TEXT}"]')
    assert list(data.tables) == ["image", "text"]


@pytest.mark.parametrize("state", ["last", "both", "all"])
def test_a_training_that_reads_words_ends_with_a_result_and_keeps_them(
    tmp_path: Path, cache: Path, state: str
) -> None:
    features = f'dataset = "tiny"\nimage = "{IMAGE}"'
    question = f'name = "word_lstm"\nhidden = 8\nstate = "{state}"'
    run = run_of(tmp_path, cache, "baselines=on", "train.epochs=2", features=features,
                 question=question, attention=STACKED)  # fmt: skip
    result = result_of(run)
    for name in ("question_only", "light_probe"):
        assert result["baselines"][name]["test"]["n"] == result["metrics"]["test"]["n"]
    described = json.loads(next(run.glob("checkpoints/*/*.json")).read_text())
    assert "colour" in json.dumps(described)


def test_words_beside_a_text_table_are_refused(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, question='name = "word_lstm"')
    with pytest.raises(ConfigError, match=r"'word_lstm' reads the words themselves; leave"):
        load_experiment(str(path))
