"""What a run's answers are made with beside its weights: which encoder makes each input, what a
batch of it is, and the vectors of its answers. Read from the cache that the run was trained on, or
from an export, which needs no cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import vqa_cache
from train.config.schema import Config, reads_words
from train.errors import TrainError
from train.inputs.hold import specification_of
from train.inputs.parts import experiment_splits
from train.inputs.specification import Grid, Specification, Tokens, Vector, Words
from train.inputs.tables import answer_vectors, find_answer_table, find_tables
from vqa_cache.cache import Cache, spec_text
from vqa_cache.records.table import Identity
from vqa_cache.spec import is_table_name
from vqa_cache.table import Table


@dataclass(frozen=True)
class EncodedBy:
    """The encoder of a table.

    Attributes:
        spec: as the experiment names it.
        table: the table's name.
        computed_in: "fp32" or "bf16".
    """

    spec: str
    table: str
    identity: Identity
    computed_in: str


@dataclass(frozen=True)
class Sources:
    """Everything that answers are made with beside the weights.

    Attributes:
        encoded_by: name of an input -> its encoder; "answer" is that of the answers' texts.
        specifications: name of an input -> what a batch of it is, as the model was built for it.
        answer_vectors: float32 [answers, width]; None where the head takes none.
    """

    encoded_by: Mapping[str, EncodedBy]
    specifications: Mapping[str, Specification]
    answer_vectors: torch.Tensor | None


def from_cache(config: Config, described: Mapping[str, Any], cache: Path) -> Sources:
    """What a cache holds.

    Args:
        described: the description of the run's checkpoint.

    Raises:
        TrainError, CacheError: a table is missing, or was imported.
    """
    opened = vqa_cache.open(cache)
    command = "python -m precompute"
    tables = find_tables(opened, config.features, command)
    named = _named(config)
    encoded_by = {name: _encoder_of(named[name], table) for name, table in tables.items()}
    answers = find_answer_table(opened, config, command)
    vectors = None
    if answers is not None:
        encoded_by["answer"] = _encoder_of(named["answer"], answers)
        vectors = answer_vectors(answers, described["answers"], command)
    return Sources(encoded_by, _specifications(config, described, tables, opened), vectors)


def _named(config: Config) -> dict[str, str]:
    """Name of an input -> its encoder or table, as the experiment names it."""
    found = {}
    for modality, specs in (("image", config.features.images), ("text", config.features.texts)):
        for number, spec in enumerate(specs, start=1):
            found[modality if number == 1 else f"{modality} {number}"] = spec
    return {**found, "answer": config.features.answer_text or ""}


def _encoder_of(named: str, table: Table) -> EncodedBy:
    record = table.record
    if record.precision == "imported":
        raise TrainError(
            f"table {table.name}: its rows were imported, so no encoder here makes one of a new "
            f"{table.modality}; train on a table that python -m precompute fills"
        )
    spec = spec_text(record.spec) if is_table_name(named) else named
    return EncodedBy(spec, table.name, record.identity, record.computed_in)


def _specifications(
    config: Config, described: Mapping[str, Any], tables: Mapping[str, Table], cache: Cache
) -> dict[str, Specification]:
    positions = config.attention is not None
    found: dict[str, Specification] = {
        name: specification_of(table, positions=positions, boxes=False)
        for name, table in tables.items()
    }
    grids = {name: one for name, one in found.items() if isinstance(one, Grid)}
    if grids and _several_images(cache, config.features.dataset):
        # as they are held for training: grids of several images one after another
        found |= {name: Tokens(grid.d, grid.longest) for name, grid in grids.items()}
    if reads_words(config):
        found["text"] = _words(config, described["words"])
    return found


def _words(config: Config, words: Mapping[str, Any]) -> Words:
    size = len(words["words"]) + 2  # padding and the unknown word
    assert config.question is not None
    return Words(size, words["longest"])


def _several_images(cache: Cache, dataset: str) -> bool:
    splits = experiment_splits(cache, dataset, "python -m precompute")
    return any(split.image_lists is not None for split in splits.values())


# ---------------------------------------------------------------- as an export keeps them

_KINDS: dict[str, type[Vector | Grid | Tokens | Words]] = {
    kind.__name__.lower(): kind for kind in (Vector, Grid, Tokens, Words)
}


def described(sources: Sources) -> dict[str, Any]:
    """Sources as JSON values, without the answers' vectors."""
    return {
        "encoded_by": {
            name: {**vars(by), "identity": by.identity.as_json()}
            for name, by in sources.encoded_by.items()
        },
        "specifications": {
            name: {"kind": type(one).__name__.lower(), **asdict(one)}
            for name, one in sources.specifications.items()
        },
    }


def from_description(values: Mapping[str, Any], vectors: torch.Tensor | None) -> Sources:
    """Sources as `described` wrote them."""
    encoded_by = {
        name: EncodedBy(**{**by, "identity": Identity(**by["identity"])})
        for name, by in values["encoded_by"].items()
    }
    specifications: dict[str, Specification] = {}
    for name, one in values["specifications"].items():
        kind = _KINDS[one["kind"]]
        specifications[name] = kind(**{key: v for key, v in one.items() if key != "kind"})
    return Sources(encoded_by, specifications, vectors)
