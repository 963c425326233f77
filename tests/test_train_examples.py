"""Splits joined with rows: what is left out, what is an error, what is held out, and notes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import begin, commit
from test_train_small_cache import (
    FAILED,
    IMAGE,
    NO_ROW,
    QUESTIONS,
    Item,
    SmallDataset,
    build_cache,
    colour_of,
    image_row,
    items_of,
    small_dataset,
    text_row,
    write_experiment,
    write_items,
)

import vqa_cache
from train.config.files import load_experiment
from train.config.schema import Component, hidden_widths
from train.engine.data import load_data
from train.errors import TrainError
from train.inputs.batch import gather
from train.inputs.load import TrainingData
from train.inputs.parts import held_out_images, image_groups


def data_of(
    folder: Path, dataset: SmallDataset | None = None, *overrides: str, **sections: str
) -> TrainingData:
    cache = folder / "cache"
    if not cache.exists():
        build_cache(cache, dataset or small_dataset())
    path = write_experiment(folder, **sections)
    return load_data(load_experiment(str(path), overrides), vqa_cache.open(cache))


def test_batches_hold_the_rows_of_their_examples(tmp_path: Path) -> None:
    data = data_of(tmp_path)
    part = data.parts["test"]
    batch = gather(part, data.tables, torch.tensor([7, 0]))
    assert torch.equal(
        batch["image"].values[0], torch.from_numpy(image_row(1001, 4)).reshape(-1).float()
    )
    assert torch.equal(batch["text"].values[0], torch.from_numpy(text_row(QUESTIONS[2])).float())
    assert [part.question_ids()[i] for i in (7, 0)] == [107, 100]


def test_truths_are_classes_of_the_vocabulary(tmp_path: Path) -> None:
    data = data_of(tmp_path)
    texts = [data.vocabulary.answers[number] for number in data.parts["test"].truth[:5].tolist()]
    colour = ("red", "green", "blue", "yellow")[colour_of(1000)]
    assert texts[0] == colour
    assert set(texts[1:]) == {"yes", "no"}


def test_a_tenth_of_the_images_is_held_out(tmp_path: Path) -> None:
    data = data_of(tmp_path)
    train, held_out = data.parts["train"], data.parts["val"]
    assert data.selection == "val"
    assert data.held_out
    assert (len(train), len(held_out)) == (180, 20)
    assert not set(train.joined.image) & set(held_out.joined.image)


def test_the_held_out_tenth_follows_data_seed_alone(tmp_path: Path) -> None:
    def chosen(*overrides: str) -> list[Any]:
        return data_of(tmp_path, None, *overrides).parts["val"].question_ids()

    assert chosen() == chosen("seed=5")
    assert chosen() != chosen("data_seed=5")


def test_the_held_out_tenth_does_not_depend_on_the_order(tmp_path: Path) -> None:
    splits = []
    for name, images in (("a", range(40)), ("b", range(39, -1, -1))):
        cache = build_cache(tmp_path / name, SmallDataset({"train": items_of(images)}))
        splits.append(cache.split("tiny/train"))
    drawn = [set(s.image_id[held_out_images(s, 0)].tolist()) for s in splits]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 4


def test_one_image_cannot_be_held_out(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"found 1 image, expected 2 at least .* add a val split"):
        data_of(tmp_path, SmallDataset({"train": items_of(range(1))}))


def test_an_annotated_val_split_selects(tmp_path: Path) -> None:
    dataset = small_dataset()
    dataset.splits["val"] = items_of(range(500, 505))
    data = data_of(tmp_path, dataset)
    assert (data.selection, data.held_out) == ("val", False)
    assert len(data.parts["train"]) == 200


def test_an_unlabelled_val_split_does_not_select(tmp_path: Path) -> None:
    dataset = small_dataset()
    dataset.splits["val"] = [replace(i, answer=None, answers=()) for i in items_of(range(500, 502))]
    dataset.unlabelled = ("val",)
    data = data_of(tmp_path, dataset)
    assert (data.selection, data.held_out) == ("held_out", True)
    assert len(data.parts["held_out"]) == 20
    assert not data.parts["val"].answered.any()


def test_vocabulary_comes_from_the_training_part_alone(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    held = set(data_of(tmp_path / "first").parts["val"].joined.image.tolist())
    dataset = small_dataset()
    dataset.splits["train"] = [
        replace(item, answer="rare", answers=("rare",)) if item.images[0] in held else item
        for item in dataset.splits["train"]
    ]
    (tmp_path / "second").mkdir()
    data = data_of(tmp_path / "second", dataset)
    assert "rare" not in data.vocabulary.answers
    assert data.notes == ["val: of 20 answers 20 outside the vocabulary of 6 (other = wrong)"]


def test_statistics_come_from_the_training_part_alone(tmp_path: Path) -> None:
    data = data_of(tmp_path, None, "features.normalise=zscore")
    images = sorted(
        {int(i) for i in data.parts["train"].joined.split.image_id[data.parts["train"].joined.kept]}
    )
    rows = np.stack([image_row(i, 4).reshape(-1) for i in images]).astype(np.float64)
    mean = data.tables["image"].normaliser.mean
    assert mean is not None
    assert np.allclose(mean.numpy(), rows.mean(axis=0), atol=1e-6)


def test_failed_images_are_left_out_and_counted(tmp_path: Path) -> None:
    dataset = replace(small_dataset(), broken={3: FAILED, 1002: FAILED})
    data = data_of(tmp_path, dataset)
    assert len(data.parts["train"]) + len(data.parts["val"]) == 195
    assert (len(data.parts["test"]), data.parts["test"].left_out) == (55, 5)
    assert [note for note in data.notes if "left out" in note] == [
        "tiny/train: 5 of 200 examples left out, an item of theirs failed in stage 1 or is missing",
        "tiny/test: 5 of 60 examples left out, an item of theirs failed in stage 1 or is missing",
    ]


def test_a_split_that_was_limited_is_told(tmp_path: Path) -> None:
    dataset = small_dataset()
    data_of(tmp_path, dataset)
    folder = tmp_path / "cache" / "examples" / "tiny" / "train"
    write_items(folder, dataset.splits["train"], True, limit=201)  # more than there are
    assert data_of(tmp_path).notes == []
    write_items(folder, dataset.splits["train"][:50], True, limit=50)
    [note] = data_of(tmp_path).notes
    assert note.startswith("tiny/train: holds the first 50 examples alone, as stage 1 was told")


def test_a_head_of_ones_own_may_call_anything_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_file.py").write_text(
        "import torch\n"
        "class MyHead(torch.nn.Linear):\n"
        "    def __init__(self, in_features, num_answers, *, hidden: int | str = 3):\n"
        "        super().__init__(in_features, num_answers)\n"
    )
    data = data_of(tmp_path, head='name = "my_file:MyHead"')
    assert len(data.vocabulary) == 6
    config = load_experiment(str(tmp_path / "tiny_mlp.toml")).config
    assert hidden_widths(config.head) == [3]
    assert hidden_widths(Component(name="my_file:MyHead", hidden="wide")) == []


@pytest.mark.parametrize("load", ["map", "read"])
def test_a_ragged_table_is_refused(tmp_path: Path, load: str) -> None:
    """Mapped, a row would be any one token."""
    build_cache(tmp_path / "cache", small_dataset())
    table = begin(tmp_path / "cache", modality="text", tap="tokens", ragged=True, row_shape=(8,))
    texts = [*QUESTIONS, "other"]
    commit(table, texts, [np.ones((n + 1, 8), np.float16) for n in range(len(texts))])
    with pytest.raises(TrainError, match=r"tokens.* is ragged .*tap=cls, mean"):
        data_of(tmp_path, None, f"features.text={table.name}", f"load={load}")


def test_questions_alone_do_not_need_the_images(tmp_path: Path) -> None:
    dataset = replace(small_dataset(), broken={3: NO_ROW})
    build_cache(tmp_path / "cache", dataset)
    features = 'dataset = "tiny"\ntext = "pkg:tiny/model"'
    data = data_of(tmp_path, features=features)
    assert list(data.tables) == ["text"]
    assert len(data.parts["train"]) + len(data.parts["val"]) == 200


def test_an_unfinished_cache_is_an_error(tmp_path: Path) -> None:
    dataset = replace(small_dataset(), broken={3: NO_ROW, 4: NO_ROW, 5: FAILED})
    with pytest.raises(TrainError) as error:
        data_of(tmp_path, dataset)
    path = tmp_path / "tiny_mlp.toml"
    assert re.fullmatch(
        "unfinished cache: 2 of 40 images of tiny/train have no row in image/test.resnet18/.*, nor "
        f"a recorded failure; encode them with: python -m precompute --for {path} "
        f"--cache {tmp_path / 'cache'}",
        str(error.value),
    )


def test_a_missing_table_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"no image table .* encode it with: python -m precompute"):
        data_of(tmp_path, None, "features.image=timm:resnet50")


def test_a_missing_dataset_names_the_command(tmp_path: Path) -> None:
    build_cache(tmp_path / "cache", small_dataset())
    with pytest.raises(TrainError, match="no split nope/train; the cache has: tiny/test, tiny/tr"):
        data_of(tmp_path, None, "features.dataset=nope")


def test_missing_answer_texts_are_named(tmp_path: Path) -> None:
    dataset = replace(small_dataset(), without_texts=("red", "no"))
    with pytest.raises(TrainError) as error:
        data_of(tmp_path, dataset, head='name = "cosine"\nhidden = []')
    assert "lacks 2 of 6 answer texts: 'no', 'red'; add them with: python -m precompute --for" in (
        str(error.value)
    )


def test_answer_vectors_are_in_the_order_of_the_vocabulary(tmp_path: Path) -> None:
    data = data_of(tmp_path, head='name = "cosine"\nhidden = []')
    assert data.answer_vectors is not None
    expected = np.stack([text_row(text) for text in data.vocabulary.answers]).astype(np.float32)
    assert np.array_equal(data.answer_vectors.numpy(), expected)


def several_images() -> SmallDataset:
    """Pairs of neighbours: examples share images in chains 0-1-2, 3-4, and so on."""
    pairs = [(0, 1), (1, 2), (3, 4), (5,), (6, 7), (8, 9), (10, 11), (12, 13), (14, 15), (16, 17)]
    items = [Item(pair, QUESTIONS[0], "red", ("red",)) for pair in pairs * 2]
    return SmallDataset({"train": items})


def test_several_images_are_averaged(tmp_path: Path) -> None:
    data = data_of(tmp_path, several_images())
    part = data.parts["train"]
    images = [several_images().splits["train"][i].images for i in part.joined.kept]
    batch = gather(part, data.tables, torch.arange(len(part)))["image"].values
    expected = [np.mean([image_row(i, 4).astype(np.float32) for i in p], axis=0) for p in images]
    assert np.allclose(batch.numpy(), np.stack(expected).reshape(len(part), -1), atol=1e-6)


def test_images_that_are_seen_together_stay_together(tmp_path: Path) -> None:
    split = build_cache(tmp_path / "cache", several_images()).split("tiny/train")
    group = image_groups(split)
    assert group[:4].tolist() == [0, 0, 3, 5]
    assert (group[:10] == group[10:]).all()
    held = held_out_images(split, 0)
    assert held.sum() == 2
    assert set(group[held]).isdisjoint(group[~held])


def test_an_example_with_one_failed_image_of_two_is_left_out(tmp_path: Path) -> None:
    data = data_of(tmp_path, replace(several_images(), broken={1: FAILED}))
    assert len(data.parts["train"]) + len(data.parts["val"]) == 16


def test_overfit_takes_the_first_examples(tmp_path: Path) -> None:
    data = data_of(tmp_path, None, "train.overfit=7")
    assert list(data.parts) == ["train"]
    assert data.selection == "train"
    assert data.parts["train"].question_ids() == list(range(100, 107))


def test_empty_and_outside_answers_are_data(tmp_path: Path) -> None:
    dataset = small_dataset()
    for number in range(0, 20, 5):
        item = dataset.splits["test"][number]
        dataset.splits["test"][number] = replace(item, answer="", answers=("",))
    data = data_of(tmp_path, dataset)
    assert data.notes == [
        "test: of 60 answers 4 empty, 4 outside the vocabulary of 6 (other = wrong)"
    ]
    assert data.parts["test"].answered.all()
    (tmp_path / "drop").mkdir()
    dropped = data_of(tmp_path / "drop", dataset, "answers.other=drop").parts["test"]
    assert (int(dropped.answered.sum()), dropped.left_out) == (56, 4)


def test_all_annotators_count_where_asked(tmp_path: Path) -> None:
    dataset = small_dataset()
    dataset.splits["train"] = [
        replace(item, answers=("maybe", "maybe", str(item.answer)))
        for item in dataset.splits["train"]
    ]
    assert "maybe" not in data_of(tmp_path, dataset).vocabulary.answers
    data = data_of(tmp_path, None, "answers.source=all")
    assert data.vocabulary.answers[0] == "maybe"


def test_no_labelled_example_is_an_error(tmp_path: Path) -> None:
    dataset = small_dataset()
    dataset.splits["train"] = [
        replace(item, answer=None, answers=()) for item in dataset.splits["train"]
    ]
    with pytest.raises(TrainError, match="the training part has no answer"):
        data_of(tmp_path, dataset)


def test_digest_follows_the_data(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    same = [data_of(folder).digest for folder in folders[:2]]
    assert same[0] == same[1]
    assert data_of(folders[2], replace(small_dataset(), broken={3: FAILED})).digest != same[0]


def test_a_table_may_be_named_instead_of_a_spec(tmp_path: Path) -> None:
    cache = build_cache(tmp_path / "cache", small_dataset())
    name = cache.find_table(IMAGE, "image").name
    assert data_of(tmp_path, None, f"features.image={name}").digest == data_of(tmp_path).digest
