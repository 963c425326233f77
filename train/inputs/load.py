"""Everything that a run reads: its splits joined with tables, then held ready for batches.

The two halves are apart, so that a run that is finished reads no row, and so that the precision,
which the model's first product decides, is known when rows are converted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from train.components import families
from train.components.lookup import takes
from train.config.precisions import COMPUTE_TYPES, Precision
from train.config.schema import Config, Experiment, reads_words
from train.errors import TrainError
from train.inputs.batch import InputTable
from train.inputs.hold import hold_tables, hold_words, specification_of
from train.inputs.large.blocks import BLOCK_SIZES, BlockSizes
from train.inputs.parts import (
    Joined,
    Part,
    digest_of,
    experiment_splits,
    held_out_images,
    join,
    make_part,
    most_frequent_class,
)
from train.inputs.question_words import QuestionWords, read_words
from train.inputs.resident import device_of
from train.inputs.specification import Specification
from train.inputs.tables import answer_vectors, find_answer_table, find_boxes, find_tables
from train.inputs.vocabulary import (
    Vocabulary,
    count_answers,
    listed,
    most_frequent,
    plurals_in,
    read_vocabulary,
    spelt_apart,
    typed,
)
from vqa_cache.cache import Cache
from vqa_cache.remedy import completed
from vqa_cache.table import Table


@dataclass(frozen=True)
class JoinedData:
    """What a run reads, known and not yet in memory.

    Attributes:
        splits: part -> its examples with the rows of their items.
        selection: name of the part that selects epochs.
        held_out: whether that part is a tenth of train instead of a split.
        tables: name of an input -> its table.
        boxes: places of the regions of an imported image table.
        words: of the questions, where a branch reads them.
        digest: over examples, tables, rows and vocabulary.
        digests: the same for each input alone, without the answer vectors.
        notes: what a user should know about the data, one line each.
    """

    experiment: Experiment
    splits: Mapping[str, Joined]
    selection: str
    held_out: bool
    vocabulary: Vocabulary
    tables: Mapping[str, Table]
    boxes: Table | None
    words: QuestionWords | None
    answer_table: Table | None
    digest: str
    digests: Mapping[str, str]
    notes: Sequence[str]

    @property
    def specifications(self) -> dict[str, Specification]:
        """Name of an input -> what a batch of it is."""
        positions = self.experiment.config.attention is not None
        found: dict[str, Specification] = {
            name: specification_of(table, positions=positions, boxes=self.boxes is not None)
            for name, table in self.tables.items()
        }
        return found if self.words is None else {**found, "text": self.words.specification}


@dataclass(frozen=True)
class TrainingData:
    """What `fit` and the evaluation read.

    Attributes:
        parts: "train", the part that selects epochs, and every other split.
        selection, held_out, digest, digests, notes: as in `JoinedData`.
        tables: name of an input -> rows ready to be gathered, in the type of `precision`.
        precision: what matrix products are computed in.
        words: of the questions, where a branch reads them.
        answer_vectors: float32 [answers, width] for heads that take them.
    """

    parts: Mapping[str, Part]
    selection: str
    held_out: bool
    vocabulary: Vocabulary
    tables: Mapping[str, InputTable]
    precision: Precision
    words: QuestionWords | None
    answer_vectors: torch.Tensor | None
    digest: str
    digests: Mapping[str, str]
    notes: Sequence[str]

    @property
    def device(self) -> torch.device:
        """Where the run computes."""
        return device_of(self.tables)


def join_data(experiment: Experiment, cache: Cache) -> JoinedData:
    """Join an experiment's splits with its tables.

    Raises:
        TrainError: a table or split is missing, or the cache is unfinished; the text names the
            command of stage 1 that helps. Or a table is ragged and nothing reads its positions.
    """
    config = experiment.config
    command = completed(experiment.precompute, cache.path, config.features.dataset)
    experiment = replace(experiment, precompute=command)
    tables = find_tables(cache, config.features, command)
    splits = experiment_splits(cache, config.features.dataset, command)
    joined = {name: join(split, tables, command) for name, split in splits.items()}
    notes = [
        f"{split.name}: holds the first {len(split):,} examples alone, as stage 1 was told "
        f"--limit; all of them: {command}"
        for split in splits.values()
        if split.limit is not None and len(split) >= split.limit
    ]
    notes += [
        f"{part.split.name}: {len(part.left_out):,} of {len(part.split):,} examples left out, an "
        "item of theirs failed in stage 1 or is missing"
        for part in joined.values()
        if len(part.left_out)
    ]
    joined, selection = _select(joined, config)
    words = None
    if reads_words(config):
        joined, words = read_words(joined, config)
        notes += words.notes
    vocabulary = _with_types(_vocabulary(joined["train"], config), joined["train"], config)
    answer_table = find_answer_table(cache, config, command)
    images = config.features.images
    digests = {
        name: _with_vocabulary(digest_of(joined, {name: tables[name]} if name in tables else {}),
                               vocabulary)
        for name in [*tables, *(["text"] if words else [])]
    }  # fmt: skip
    read = {**tables, "answer": answer_table} if answer_table is not None else tables
    return JoinedData(
        experiment=experiment,
        splits=joined,
        selection=selection,
        held_out=selection not in (*splits, "train"),
        vocabulary=vocabulary,
        tables=tables,
        boxes=find_boxes(cache, images[0]) if len(images) == 1 else None,
        words=words,
        answer_table=answer_table,
        digest=_with_vocabulary(digest_of(joined, read), vocabulary),
        digests=digests,
        notes=notes,
    )


def hold_data(
    data: JoinedData,
    precision: Precision,
    device: torch.device,
    *,
    sizes: BlockSizes = BLOCK_SIZES,
) -> TrainingData:
    """The same with its rows in memory, or mapped.

    Args:
        precision: in which rows are held and products computed.
        device: where to compute.
        sizes: when a table is large, and how its rows are shuffled then.

    Raises:
        TrainError: an answer's text is missing, or no example has an answer that counts.
        vqa_cache.DamagedError: a row differs from its checksum.
    """
    config, vocabulary = data.experiment.config, data.vocabulary
    held, items = hold_tables(
        data.tables,
        data.splits,
        config,
        data.specifications,
        compute_type=COMPUTE_TYPES[precision],
        device=device,
        sizes=sizes,
        boxes=data.boxes,
    )
    if data.words is not None:
        held["text"] = hold_words(data.words, device)
        for name, part in data.splits.items():
            items[name]["text"] = part.items["text"]
    most = most_frequent_class(data.splits["train"], vocabulary)
    parts = {
        name: make_part(name, part, items[name], vocabulary, most)
        for name, part in data.splits.items()
    }
    _check_labels(parts, data.selection, vocabulary)
    vectors = None
    if data.answer_table is not None:
        command = data.experiment.precompute
        vectors = answer_vectors(data.answer_table, vocabulary.answers, command)
    notes = [note for part in parts.values() if (note := _note(part, vocabulary))]
    return TrainingData(
        parts=parts,
        selection=data.selection,
        held_out=data.held_out,
        vocabulary=vocabulary,
        tables=held,
        precision=precision,
        words=data.words,
        answer_vectors=vectors,
        digest=data.digest,
        digests=data.digests,
        notes=[*data.notes, *spelt_apart(vocabulary), *notes],
    )


def _select(joined: Mapping[str, Joined], config: Config) -> tuple[dict[str, Joined], str]:
    """The parts of a run and which of them selects epochs.

    An annotated val split selects; where there is none, a tenth of train is held out for it and
    called "val" ("held_out" beside a val split without annotations).
    """
    train = joined["train"]
    if config.train.overfit:
        labelled = train.answer >= 0
        first = np.zeros(len(train.split), dtype=bool)
        first[train.kept[labelled][: config.train.overfit]] = True
        return {"train": train.only(first)}, "train"
    if "val" in joined and joined["val"].split.annotated:
        return dict(joined), "val"
    held_out = held_out_images(train.split, config.data_seed)
    rest = {name: part for name, part in joined.items() if name != "train"}
    name = "held_out" if "val" in joined else "val"
    return {"train": train.only(~held_out), name: train.only(held_out), **rest}, name


def _check_labels(parts: Mapping[str, Part], selection: str, vocabulary: Vocabulary) -> None:
    train = parts["train"]
    if not ((train.truth >= 0) & (train.truth < len(vocabulary))).any():
        raise TrainError(
            f"{train.joined.split.name}: none of {len(train):,} examples has an answer in the "
            f"vocabulary of {len(vocabulary):,}; expected some to train on"
        )
    if not parts[selection].answered.any():
        raise TrainError(
            f"{parts[selection].joined.split.name}: none of the {len(parts[selection]):,} examples "
            "that select epochs has an answer that counts; expected labelled examples"
        )


def _vocabulary(train: Joined, config: Config) -> Vocabulary:
    answers = config.answers
    normalised = answers.normalise == "vqa"
    given: dict[str, Any] = {"k": answers.k, "normalised": normalised, "other": answers.other}
    if isinstance(answers.vocabulary, list):
        return listed(answers.vocabulary, **given)
    if answers.vocabulary not in ("train", "all"):
        return read_vocabulary(Path(answers.vocabulary), **given)
    codes = train.answer if answers.source == "majority" else train.all_answers()
    counts = count_answers(codes, train.split.answer_texts, normalised=normalised)
    merged = plurals_in(counts, answers.kept_apart) if answers.merge == "plurals" else None
    if answers.vocabulary == "all":
        given["k"] = len(counts)
    return most_frequent(counts, merged=merged, min_count=answers.min_count, **given)


def _with_types(vocabulary: Vocabulary, train: Joined, config: Config) -> Vocabulary:
    """The vocabulary, with the types of its answers where a component takes them."""
    asking = [
        f"{family.kind} {chosen.name!r}"
        for family, chosen in ((families.HEAD, config.head), (families.LOSS, config.loss))
        if takes(family.find(chosen.name), "answer_types")
    ]
    if not asking:
        return vocabulary
    split = train.split
    truth = vocabulary.truths(train.answer, split.answer_texts)
    try:
        return typed(vocabulary, truth, split.answer_type[train.kept], split.answer_types)
    except TrainError as error:
        raise TrainError(
            f"{' and '.join(asking)}: the types of answers are read from train, and of "
            f"{split.name} {error}; choose another, or give the data set's questions an answer_type"
        ) from None


def _with_vocabulary(digest: str, vocabulary: Vocabulary) -> str:
    joined = "\0".join([digest, *vocabulary.answers])
    return hashlib.sha256(joined.encode()).hexdigest()[:32]


def _note(part: Part, vocabulary: Vocabulary) -> str | None:
    """Answers of a part that need a word: empty ones and those outside the vocabulary."""
    answer: npt.NDArray[np.int32] = part.joined.answer
    texts = part.joined.split.answer_texts
    found = {
        "empty": int(np.isin(answer, [i for i, text in enumerate(texts) if not text]).sum()),
        f"outside the vocabulary of {len(vocabulary):,} (other = {vocabulary.other})": int(
            (part.labelled & ~part.in_vocabulary).sum()
        ),
    }
    told = [f"{count:,} {what}" for what, count in found.items() if count]
    return f"{part.name}: of {part.labelled.sum():,} answers {', '.join(told)}" if told else None
