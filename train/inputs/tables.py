"""The tables that an experiment names, and the vectors of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from train.components import families
from train.components.lookup import takes
from train.config.schema import Config
from train.errors import TrainError
from vqa_cache import CacheError, text_key
from vqa_cache.cache import Cache
from vqa_cache.keys import pack_keys
from vqa_cache.quantised import widened
from vqa_cache.spec import Features, is_table_name, parse_spec
from vqa_cache.table import Table

_NAMED_TEXTS = 5


def find_tables(cache: Cache, features: Features, command: str) -> dict[str, Table]:
    """The input tables of an experiment, image before text. Of several for one modality the second
    is called "image 2", and so on. Raises TrainError with the command that encodes a missing one.
    """
    tables: dict[str, Table] = {}
    for modality, specs in (("image", features.images), ("text", features.texts)):
        for number, spec in enumerate(specs, start=1):
            name = modality if number == 1 else f"{modality} {number}"
            tables[name] = find_table(cache, spec, modality, command)
    return tables


def modality_of(name: str) -> str:
    """The modality of an input: "image 2" is an image's."""
    return name.partition(" ")[0]


def find_table(cache: Cache, spec: str, modality: str, command: str) -> Table:
    """The one table that a spec or a name means. Raises TrainError."""
    try:
        return cache.find_table(spec, "image" if modality == "image" else "text")
    except CacheError as error:
        raise TrainError(f"{error}; encode it with: {command}") from None


def find_boxes(cache: Cache, spec: str) -> Table | None:
    """The table of the places of an imported table's regions; None where none was imported."""
    if is_table_name(spec):
        return None
    boxes = replace(parse_spec(spec), tap="boxes")
    if boxes.family != "imported":
        return None
    try:
        return cache.find_table(str(boxes), "image")
    except CacheError:
        return None


def find_answer_table(cache: Cache, config: Config, command: str) -> Table | None:
    """The table of the answers' texts; None where the head takes no vectors of them."""
    spec = config.features.answer_text
    if spec is None or not takes(families.HEAD.find(config.head.name), "answer_vectors"):
        return None
    table = find_table(cache, spec, "text", command)
    if table.ragged:
        raise TrainError(
            f"features.answer_text: table {table.name} is ragged (rows of varying numbers of "
            "tokens), expected one vector a text; name one with tap=cls or tap=mean"
        )
    return table


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
    return widened(table.stored_rows()[torch.from_numpy(rows)]).reshape(len(answers), -1)
