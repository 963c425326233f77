"""Everything that a run reads, joined and in memory: parts, vocabulary, tables, answer vectors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from train.components import families
from train.components.lookup import takes
from train.config.schema import Config, Experiment, hidden_widths
from train.engine.precision import check_precision, choose_precision
from train.engine.step import COMPUTE_TYPES, Precision
from train.errors import TrainError
from train.inputs.large.blocks import BLOCK_SIZES, Blocks, BlockSizes, cut, in_row_order
from train.inputs.large.mapped_rows import MappedRows
from train.inputs.large.read_ahead import ReadAhead
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
from train.inputs.resident import (
    ItemRows,
    Load,
    ResidentTable,
    Source,
    device_of,
    distinct,
    fit_normaliser,
    residence,
)
from train.inputs.vocabulary import Vocabulary, count_answers, most_frequent, read_vocabulary
from vqa_cache import CacheError, text_key
from vqa_cache.cache import Cache
from vqa_cache.keys import pack_keys
from vqa_cache.spec import Features
from vqa_cache.system.device import CPU, choose_device
from vqa_cache.table import Table

_NAMED_TEXTS = 5


@dataclass(frozen=True)
class TrainingData:
    """What `fit` and the evaluation read.

    Attributes:
        parts: "train", the part that selects epochs, and every other split.
        selection: name of the part that selects epochs.
        held_out: whether that part is a tenth of train instead of a split.
        tables: modality -> resident rows, in the type of `precision`.
        precision: what matrix products are computed in.
        answer_vectors: float32 [answers, width] for heads that take them.
        digest: over examples, tables, rows and vocabulary.
        digests: the same for each modality alone, without the answer vectors.
        notes: what a user should know about the data, one line each.
    """

    parts: Mapping[str, Part]
    selection: str
    held_out: bool
    vocabulary: Vocabulary
    tables: Mapping[str, ResidentTable]
    precision: Precision
    answer_vectors: torch.Tensor | None
    digest: str
    digests: Mapping[str, str]
    notes: Sequence[str]

    @property
    def device(self) -> torch.device:
        """Where the run computes."""
        return device_of(self.tables)


def load_data(
    experiment: Experiment,
    cache: Cache,
    precision: Precision | None = None,
    device: torch.device | None = None,
    *,
    sizes: BlockSizes = BLOCK_SIZES,
) -> TrainingData:
    """Join an experiment's splits with its tables.

    Args:
        precision: what an earlier attempt of the run chose; None chooses.
        device: where to compute; None chooses.
        sizes: when a table is large, and how its rows are shuffled then.

    Raises:
        TrainError: a table, split or answer text is missing, or the cache is unfinished; the text
            names the command of stage 1 that helps. Or a table is ragged, or the device cannot do
            the precision.
    """
    device = device or choose_device()
    config, command = experiment.config, experiment.precompute
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
    vocabulary = _vocabulary(joined["train"], config)
    answer_table = _answer_table(cache, config, command)
    if precision is None:
        precision = _precision(tables, len(vocabulary), config, device)
    else:
        check_precision(precision, device, f"{precision}, in which the run was begun,")
    resident, items = _resident(
        tables, joined, config, COMPUTE_TYPES[precision], device=device, sizes=sizes
    )
    most = most_frequent_class(joined["train"], vocabulary)
    parts = {
        name: make_part(name, part, items[name], vocabulary, most) for name, part in joined.items()
    }
    _check_labels(parts, selection, vocabulary)
    read = {**tables, "answer": answer_table} if answer_table is not None else tables
    vectors = None
    if answer_table is not None:
        vectors = answer_vectors(answer_table, vocabulary.answers, command)
    return TrainingData(
        parts=parts,
        selection=selection,
        held_out=selection not in (*splits, "train"),
        vocabulary=vocabulary,
        tables=resident,
        precision=precision,
        answer_vectors=vectors,
        digest=_with_vocabulary(digest_of(joined, read), vocabulary),
        digests={
            modality: _with_vocabulary(digest_of(joined, {modality: table}), vocabulary)
            for modality, table in tables.items()
        },
        notes=[*notes, *(note for part in parts.values() if (note := _note(part, vocabulary)))],
    )


def find_tables(cache: Cache, features: Features, command: str) -> dict[str, Table]:
    """The input tables of an experiment, image before text."""
    wanted = {"image": features.image, "text": features.text}
    return {
        modality: _find(cache, spec, modality, command)
        for modality, spec in wanted.items()
        if spec is not None
    }


def _find(cache: Cache, spec: str, modality: str, command: str) -> Table:
    try:
        table = cache.find_table(spec, "image" if modality == "image" else "text")
    except CacheError as error:
        raise TrainError(f"{error}; encode it with: {command}") from None
    if table.ragged:
        raise TrainError(
            f"features: table {table.name} is ragged (rows of varying numbers of tokens), expected "
            "one whose rows have one shape; name one with tap=cls, mean or grid="
        )
    return table


def _answer_table(cache: Cache, config: Config, command: str) -> Table | None:
    spec = config.features.answer_text
    if spec is None or not takes(families.HEAD.find(config.head.name), "answer_vectors"):
        return None
    return _find(cache, spec, "text", command)


def answer_vectors(table: Table, answers: Sequence[str], command: str) -> torch.Tensor:
    """Rows of the answers' texts, float32 [answers, width]. Raises TrainError naming those that
    the table lacks."""
    rows = table.row_index(pack_keys([text_key(answer) for answer in answers]))
    missing = [answers[i] for i in np.flatnonzero(rows < 0).tolist()]
    if missing:
        named = ", ".join(repr(text) for text in missing[:_NAMED_TEXTS])
        more = f" and {len(missing) - _NAMED_TEXTS:,} more" if len(missing) > _NAMED_TEXTS else ""
        raise TrainError(
            f"table {table.name} lacks {len(missing):,} of {len(answers):,} answer texts: "
            f"{named}{more}; add them with: {command}"
        )
    return table.tensor()[torch.from_numpy(rows)].reshape(len(answers), -1).float()


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
    if answers.vocabulary != "train":
        path = Path(answers.vocabulary)
        return read_vocabulary(path, k=answers.k, normalised=normalised, other=answers.other)
    codes = train.answer if answers.source == "majority" else train.all_answers()
    counts = count_answers(codes, train.split.answer_texts, normalised=normalised)
    return most_frequent(counts, k=answers.k, normalised=normalised, other=answers.other)


def _precision(
    tables: Mapping[str, Table], answers: int, config: Config, device: torch.device
) -> Precision:
    """For the first layer of the head: its first hidden layer, or its output."""
    layers = [*hidden_widths(config.head), answers]
    return choose_precision(
        config.train.precision,
        device,
        rows=config.train.batch_size,
        inner=sum(math.prod(table.row_shape) for table in tables.values()),
        outer=layers[0],
    )


def _resident(
    tables: Mapping[str, Table],
    joined: Mapping[str, Joined],
    config: Config,
    compute_type: torch.dtype,
    *,
    device: torch.device,
    sizes: BlockSizes,
) -> tuple[dict[str, ResidentTable], dict[str, dict[str, ItemRows]]]:
    """Resident tables of the rows that any part uses, and each part's rows in them."""
    resident: dict[str, ResidentTable] = {}
    items: dict[str, dict[str, ItemRows]] = {name: {} for name in joined}
    for modality, table in tables.items():
        parts = {name: part.items[modality] for name, part in joined.items()}
        used = distinct(np.concatenate([own.rows.numpy() for own in parts.values()]), len(table))
        single = all(own.offsets is None for own in parts.values())
        blocks = cut(table, used, sizes) if single else None
        needed = len(used) * math.prod(table.row_shape) * compute_type.itemsize
        load: Load = "map" if residence(config.load, needed, device) is None else "read"
        source = _source(table, blocks, load, checked=config.load == "read")
        train_rows = parts["train"].rows
        if isinstance(source, ReadAhead):
            source.expect(in_row_order(source.blocks, train_rows))
        resident[modality] = ResidentTable(
            source,
            used,
            fit_normaliser(config.features.normalise, source, train_rows.numpy()),
            compute_type=compute_type,
            load=load,
            blocks=blocks,
            device=device,
        )
        for name, own in parts.items():
            home = resident[modality].home if own.offsets is None else CPU
            items[name][modality] = replace(own, rows=resident[modality].local(own.rows).to(home))
    return resident, items


def _source(table: Table, blocks: Blocks | None, load: Load, *, checked: bool) -> Source:
    """Rows [rows, width] in stored type: in memory to be read from, or in their files."""
    if load == "read":
        return (table.read() if checked else table.tensor()).reshape(len(table), -1)
    mapped = MappedRows(table)
    return mapped if blocks is None else ReadAhead(mapped, blocks)


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
