"""The examples of an experiment: splits of a cache joined with rows, truths and groups.

Joined once at load. What cannot be used is counted: images that stage 1 recorded as failed or
missing are left out; an item that stage 1 has not reached is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from train.config.seeds import derive_seed
from train.errors import TrainError
from train.inputs.references import ANNOTATORS, References
from train.inputs.resident import ItemRows
from train.inputs.vocabulary import Vocabulary
from vqa_cache.cache import Cache
from vqa_cache.examples import Split
from vqa_cache.table import Table

Whole = npt.NDArray[np.int64]
Say = Callable[[str], None]
UNANSWERABLE = "unanswerable"  # an answer of VizWiz, and a type of its questions
HELD_OUT_SHARE = 10  # one image in ten


@dataclass(frozen=True)
class Positions:
    """Items of n examples of one modality: positions [m] in `keys`, offsets as in ItemRows."""

    keys: npt.NDArray[np.uint8]
    positions: Whole
    offsets: Whole | None = None

    def per_example(self, good: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Whether all items of an example are good, from that of each position [m] -> [n]."""
        if self.offsets is None:
            return good
        bad_before = np.concatenate([[0], np.cumsum(~good)])
        spans: npt.NDArray[np.bool_] = bad_before[self.offsets[1:]] == bad_before[self.offsets[:-1]]
        return spans


def item_positions(split: Split, modality: str) -> Positions:
    """Where each example's images, or its question, are in the split's list of keys."""
    if modality == "text":
        return Positions(split.question_keys, split.question_positions.astype(np.int64))
    if split.image_lists is None:
        return Positions(split.image_keys, split.image_positions.astype(np.int64))
    positions, offsets = split.image_lists
    return Positions(split.image_keys, positions.astype(np.int64), offsets.astype(np.int64))


@dataclass(frozen=True)
class Joined:
    """The usable examples of a split.

    Attributes:
        kept: int64 [n], which examples of the split they are.
        items: modality -> rows in its table.
        image: int64 [n], examples that share an image share a number.
        left_out: int64 [m], the examples of the split that have an item that failed or is missing.
    """

    split: Split
    kept: Whole
    items: Mapping[str, ItemRows]
    image: Whole
    left_out: Whole

    def __len__(self) -> int:
        return len(self.kept)

    def only(self, chosen: npt.NDArray[np.bool_]) -> Joined:
        """Some of the examples, usable and left out alike, by a bool for each of the split's."""
        own, out = chosen[self.kept], chosen[self.left_out]
        index = torch.from_numpy(np.flatnonzero(own))
        items = {modality: rows.select(index) for modality, rows in self.items.items()}
        return Joined(self.split, self.kept[own], items, self.image[own], self.left_out[out])

    @property
    def questions(self) -> Whole:
        """Positions in the split's distinct questions, int64 [n]."""
        return self.split.question_positions[self.kept].astype(np.int64)

    @property
    def answer(self) -> npt.NDArray[np.int32]:
        """Codes of majority answers, int32 [n]; -1 = unlabelled."""
        return self.split.answer[self.kept]

    def all_answers(self) -> npt.NDArray[np.int32]:
        """Codes of all annotators' answers of these examples, int32 [m]."""
        offsets = self.split.answers_offsets
        taken = np.zeros(len(self.split), dtype=bool)
        taken[self.kept] = True
        codes: npt.NDArray[np.int32] = self.split.answers[np.repeat(taken, np.diff(offsets))]
        return codes


def join(split: Split, tables: Mapping[str, Table], precompute: str) -> Joined:
    """Find the rows of a split's items.

    Args:
        tables: modality -> table.
        precompute: the command that would encode what is missing.

    Raises:
        TrainError: items have neither a row nor a recorded failure (an unfinished cache).
    """
    usable = np.ones(len(split), dtype=bool)
    found: dict[str, tuple[Positions, Whole]] = {}
    for modality, table in tables.items():
        items = item_positions(split, table.modality)
        rows = _rows_of(items.keys, table, split.name, precompute)
        row = np.append(rows, -1)[items.positions]  # position -1, a missing image, has none
        usable &= items.per_example(row >= 0)
        found[modality] = (items, row)
    kept = np.flatnonzero(usable).astype(np.int64)
    chosen = torch.from_numpy(kept)
    joined = {}
    for modality, (items, row) in found.items():
        offsets = None if items.offsets is None else torch.from_numpy(items.offsets)
        joined[modality] = ItemRows(torch.from_numpy(row), offsets).select(chosen)
    left_out = np.flatnonzero(~usable).astype(np.int64)
    return Joined(split, kept, joined, image_groups(split)[kept], left_out)


def _rows_of(keys: npt.NDArray[np.uint8], table: Table, split_name: str, precompute: str) -> Whole:
    rows = table.row_index(keys)
    absent = [keys[i].tobytes() for i in np.flatnonzero(rows < 0).tolist()]
    never = sum(key not in table.failed for key in absent)
    if never:
        kind = "images" if table.modality == "image" else "questions"
        raise TrainError(
            f"unfinished cache: {never:,} of {len(keys):,} {kind} of {split_name} have no row in "
            f"{table.name}, nor a recorded failure; encode them with: {precompute}"
        )
    return rows


def image_groups(split: Split) -> Whole:
    """One number per example, int64 [n], shared by all that share an image, directly or through
    others where an example has several images. Without its image an example is on its own."""
    items = item_positions(split, "image")
    alone = len(split.image_keys) + np.arange(len(split))
    if items.offsets is None:
        return np.where(items.positions >= 0, items.positions, alone)
    group = np.arange(len(split.image_keys))
    owner = np.repeat(np.arange(len(split)), np.diff(items.offsets))[items.positions >= 0]
    image = items.positions[items.positions >= 0]
    while True:  # the smallest number spreads along examples until nothing changes
        lowest = np.full(len(split), len(group))
        np.minimum.at(lowest, owner, group[image])
        spread = group.copy()
        np.minimum.at(spread, image, lowest[owner])
        if (spread == group).all():
            return np.where(lowest < len(group), lowest, alone)
        group = spread


def held_out_images(split: Split, data_seed: int) -> npt.NDArray[np.bool_]:
    """Which examples are held out, bool [n]: those of a tenth of the images.

    Each group of images is drawn by a hash of (data_seed, key), so neither the order of examples
    nor the examples that could not be used move an image from one part to the other.
    """
    group = image_groups(split)
    keys = split.image_keys
    drawn = {
        number: derive_seed(data_seed, "held out", keys[number].tobytes())
        for number in np.unique(group[group < len(keys)]).tolist()
    }
    if len(drawn) < 2:
        raise TrainError(
            f"{split.name}: found {len(drawn)} image, expected 2 at least to hold some out for "
            "the selection of epochs; add a val split"
        )
    count = max(1, round(len(drawn) / HELD_OUT_SHARE))
    chosen = sorted(drawn, key=lambda number: (drawn[number], number))[:count]
    return np.isin(group, chosen)


@dataclass(frozen=True)
class Part:
    """Examples that are trained on or evaluated together.

    Attributes:
        items: modality -> rows in its resident table.
        truth: int64 [n]: class, C and above outside the vocabulary, -1 unlabelled.
        labelled: bool [n], examples with an answer.
        answered: bool [n], labelled and not dropped: what accuracy counts.
        in_vocabulary: bool [n], whether the answer is in the vocabulary, whatever `other` says.
        most_frequent: the class that is the truth of most examples of train.
        references: of every labelled question, first the labelled examples and then those that are
            left out, for VQA accuracy; or why there are none.
        unanswerable: the class "unanswerable", where the types of the questions say which are
            (VizWiz); otherwise None.
    """

    name: str
    joined: Joined
    items: Mapping[str, ItemRows]
    truth: torch.Tensor
    labelled: npt.NDArray[np.bool_]
    answered: npt.NDArray[np.bool_]
    in_vocabulary: npt.NDArray[np.bool_]
    most_frequent: int
    references: References | str
    unanswerable: int | None = None

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def left_out(self) -> int:
        """How many examples accuracy does not count: items failed, or the answer is dropped."""
        return len(self.joined.left_out) + int((self.labelled & ~self.answered).sum())

    @property
    def left_out_labelled(self) -> int:
        """How many examples have an answer, but an item that failed or is missing."""
        return int((self.joined.split.answer[self.joined.left_out] >= 0).sum())

    def question_ids(self) -> list[int | str]:
        """Ids as the dataset gives them, in its order."""
        ids: list[int | str] = self.joined.split.question_id[self.joined.kept].tolist()
        return ids


def make_part(
    name: str,
    joined: Joined,
    items: Mapping[str, ItemRows],
    vocabulary: Vocabulary,
    most_frequent: int,
) -> Part:
    """A part with its truths in the vocabulary's classes."""
    texts = joined.split.answer_texts
    truth = vocabulary.truths(joined.answer, texts)
    labelled = truth >= 0
    in_vocabulary = replace(vocabulary, other="wrong").truths(joined.answer, texts)
    dropped = (truth >= len(vocabulary)) & (vocabulary.other == "drop")
    return Part(
        name=name,
        joined=joined,
        items=items,
        truth=torch.from_numpy(truth),
        labelled=labelled,
        answered=labelled & ~dropped,
        in_vocabulary=labelled & (in_vocabulary < len(vocabulary)),
        most_frequent=most_frequent,
        references=_references(joined, labelled, vocabulary),
        unanswerable=_unanswerable(joined, vocabulary),
    )


def _unanswerable(joined: Joined, vocabulary: Vocabulary) -> int | None:
    told = set(joined.split.question_types) == {"answerable", UNANSWERABLE}
    there = told and UNANSWERABLE in vocabulary.answers
    return vocabulary.answers.index(UNANSWERABLE) if there else None


def most_frequent_class(train: Joined, vocabulary: Vocabulary) -> int:
    """The class that is the truth of most examples of train; of equals the first, 0 without any."""
    truth = vocabulary.truths(train.answer, train.split.answer_texts)
    inside = truth[(truth >= 0) & (truth < len(vocabulary))]
    return int(np.bincount(inside, minlength=1).argmax())


def _references(
    joined: Joined, labelled: npt.NDArray[np.bool_], vocabulary: Vocabulary
) -> References | str:
    split = joined.split
    chosen = np.concatenate([joined.kept[labelled], joined.left_out])
    chosen = chosen[split.answer[chosen] >= 0]
    counts = np.diff(split.answers_offsets)[chosen]
    if not len(chosen):
        return "no labelled example to evaluate"
    if (counts != ANNOTATORS).any():
        return (
            f"{int((counts != ANNOTATORS).sum()):,} of {len(chosen):,} examples have other than "
            f"{ANNOTATORS} annotators' answers"
        )
    places = split.answers_offsets[chosen][:, None] + np.arange(ANNOTATORS)
    return References(split.answers[places], split.answer_texts, vocabulary.answers)


def experiment_splits(cache: Cache, dataset: str, precompute: str) -> dict[str, Split]:
    """All splits of a dataset in the cache by short name, train first. Raises TrainError."""
    names = [name for name in cache.splits if name.rpartition("/")[0] == dataset]
    if f"{dataset}/train" not in names:
        known = ", ".join(cache.splits) or "none"
        raise TrainError(
            f"{cache.path}: no split {dataset}/train; the cache has: {known}; add it with: "
            f"{precompute}"
        )
    order = {"train": 0, "val": 1, "test": 2}
    short = sorted((name.rpartition("/")[2] for name in names), key=lambda n: (order.get(n, 3), n))
    return {name: cache.split(f"{dataset}/{name}") for name in short}


def digest_of(joined: Mapping[str, Joined], tables: Mapping[str, Table]) -> str:
    """32 hex digits over the examples, the tables and the rows that a run reads."""
    digest = hashlib.sha256()
    for modality, table in sorted(tables.items()):
        digest.update(f"{modality} {table.id}".encode())
    for name, part in sorted(joined.items()):
        digest.update(f"{name} {part.split.name} {part.split.digest}".encode())
        digest.update(part.kept.tobytes())
    return digest.hexdigest()[:32]
