"""Tables into memory, or mapped: whatever a run's parts use of them, ready to be gathered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from train.config.schema import Config
from train.errors import TrainError
from train.inputs.batch import InputTable
from train.inputs.large.blocks import BlockSizes, cut, in_row_order
from train.inputs.large.mapped_rows import MappedRows, first_positions
from train.inputs.large.read_ahead import ReadAhead
from train.inputs.normaliser import Narrowing, Normaliser, Rows, Source, distinct, fit_normaliser
from train.inputs.parts import Joined
from train.inputs.positions import PositionTable, ranges, row_spans
from train.inputs.question_words import QuestionWords
from train.inputs.resident import ItemRows, ResidentTable, residence
from train.inputs.specification import Grid, Specification, Tokens, Vector, Words
from vqa_cache.quantised import widened
from vqa_cache.system.device import CPU
from vqa_cache.table import Table

_CHUNK = 1 << 16  # positions
Items = dict[str, dict[str, ItemRows]]  # part -> name of an input -> rows in its held table


def specification_of(table: Table, *, positions: bool, boxes: bool) -> Specification:
    """What a batch of a table's rows is.

    Args:
        positions: whether something reads positions; a grid is one long vector otherwise.
        boxes: whether the places of its regions are there.

    Raises:
        TrainError: a row is neither a vector nor a grid.
    """
    if table.ragged:
        lengths = table.lengths
        longest = int(lengths.max()) if len(lengths) else 0
        return Tokens(math.prod(table.row_shape), longest, boxes and table.modality == "image")
    if len(table.row_shape) == 1 or not positions or table.modality == "text":
        return Vector(math.prod(table.row_shape))
    cells, width = math.prod(table.row_shape[:-1]), table.row_shape[-1]
    side = math.isqrt(cells)
    return Grid(side, side, width) if side * side == cells else Grid(1, cells, width)


def hold_tables(
    tables: Mapping[str, Table],
    joined: Mapping[str, Joined],
    config: Config,
    specifications: Mapping[str, Specification],
    *,
    compute_type: torch.dtype,
    device: torch.device,
    sizes: BlockSizes,
    boxes: Table | None,
) -> tuple[dict[str, InputTable], Items]:
    """Every table's rows that any part uses, and each part's rows in them."""
    held: dict[str, InputTable] = {}
    items: Items = {name: {} for name in joined}
    for name, table in tables.items():
        parts = {part: own.items[name] for part, own in joined.items()}
        used = distinct(np.concatenate([own.rows.numpy() for own in parts.values()]), len(table))
        several = any(own.offsets is not None for own in parts.values())
        specification = specifications[name]
        if isinstance(specification, Tokens) or (several and isinstance(specification, Grid)):
            held[name], place = _hold_positions(
                table, used, parts["train"], config, specification,
                compute_type=compute_type, device=device,
                boxes=boxes if name == "image" else None,
            )  # fmt: skip
        else:
            assert not isinstance(specification, Words)  # made of texts, not of a table
            held[name] = one = _hold_rows(
                table, used, parts["train"], config, specification,
                compute_type=compute_type, device=device, sizes=None if several else sizes,
            )  # fmt: skip
            place = one.place
        home = held[name].home if not several else CPU
        for part, own in parts.items():
            items[part][name] = replace(own, rows=place[own.rows].to(home))
    return held, items


def _hold_rows(
    table: Table,
    used: np.ndarray,
    train: ItemRows,
    config: Config,
    specification: Vector | Grid,
    *,
    compute_type: torch.dtype,
    device: torch.device,
    sizes: BlockSizes | None,
) -> ResidentTable:
    """Rows of one shape. `sizes`: of blocks, where a large table may be shuffled in windows."""
    blocks = None if sizes is None else cut(table, used, sizes)
    width = math.prod(table.row_shape)
    each = specification.d if isinstance(specification, Grid) else width
    kept = width // each * _kept(config, each)
    home = residence(config.load, len(used) * kept * compute_type.itemsize, device)
    source: torch.Tensor | MappedRows | ReadAhead
    if home is not None:
        source = table.stored_rows()
    else:
        mapped = MappedRows(table)
        source = mapped if blocks is None else ReadAhead(mapped, blocks)
    if isinstance(source, ReadAhead):
        source.expect(in_row_order(source.blocks, train.rows))
    return ResidentTable(
        source,
        used,
        _fitted(config, source, train.rows.numpy(), each),
        specification=specification,
        compute_type=compute_type,
        home=home,
        blocks=blocks,
        device=device,
    )


def _hold_positions(
    table: Table,
    used: np.ndarray,
    train: ItemRows,
    config: Config,
    specification: Tokens | Grid,
    *,
    compute_type: torch.dtype,
    device: torch.device,
    boxes: Table | None,
) -> tuple[PositionTable, torch.Tensor]:
    """Rows of several positions, and int64 [rows of the table], where a row is in what is held."""
    width = specification.d
    each = table.lengths if table.ragged else np.full(len(table), specification.longest)
    lengths = each[used]
    place = torch.full((len(table),), -1, dtype=torch.int64)
    place[torch.from_numpy(used)] = torch.arange(len(used))
    home = residence(
        config.load, int(lengths.sum()) * _kept(config, width) * compute_type.itemsize, device
    )
    first, count = row_spans(lengths)
    in_training = distinct(place[train.rows].numpy(), len(used))
    longest = int(lengths.max()) if len(lengths) else 0
    tokens = Tokens(width, longest, boxes is not None)
    if home is None:
        mapped = MappedRows(table)
        first = torch.from_numpy(first_positions(table)[used])
        rows = ranges(first[in_training], count[in_training]).numpy()
        normaliser = _fitted(config, mapped, rows, width)
        tokens = replace(tokens, d=normaliser.gives(width))
        held = PositionTable(
            mapped, first, count, tokens, normaliser=normaliser, compute_type=compute_type,
            device=device,
            boxes=_boxes(boxes, table, used, lengths, CPU),
        )  # fmt: skip
        return held, place
    source = _read_positions(table, used)
    rows = ranges(first[in_training], count[in_training]).numpy()
    normaliser = _fitted(config, source, rows, width)
    tokens = replace(tokens, d=normaliser.gives(width))
    values = torch.empty((len(source), tokens.d), dtype=compute_type, device=home)
    for start in range(0, len(source), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        values[chunk] = normaliser(widened(source[chunk]))
    held = PositionTable(
        values, first, count, tokens, normaliser=normaliser, compute_type=compute_type,
        device=device, boxes=_boxes(boxes, table, used, lengths, home),
    )  # fmt: skip
    return held, place


def _kept(config: Config, width: int) -> int:
    """How many numbers of so many are held, as far as the config tells."""
    return min(config.features.width or width, width)


def _fitted(config: Config, source: Source, rows: Rows, width: int) -> Normaliser:
    features = config.features
    narrowing = Narrowing(features.width, features.keep)
    return fit_normaliser(features.normalise, source, rows, width=width, narrowing=narrowing)


def _read_positions(table: Table, rows: np.ndarray) -> torch.Tensor:
    """Positions of rows of a table, joined, as they are stored, [all, d] (int8: [all, d + 4])."""
    if table.ragged:
        found, _ = table.stored_tokens(rows)
    else:
        found = table.stored_rows()[torch.from_numpy(rows)]
    return found.reshape(-1, found.shape[-1])


def _boxes(
    boxes: Table | None, table: Table, used: np.ndarray, lengths: np.ndarray, home: torch.device
) -> torch.Tensor | None:
    """Places of the regions in use, float32 [all, 4], as shares of the image."""
    if boxes is None:
        return None
    rows = boxes.row_index(table.keys[used])
    if (rows < 0).any() or (boxes.lengths[rows] != lengths).any():
        raise TrainError(
            f"table {boxes.name}: does not hold a box for every region of {table.name}; import "
            "features and boxes from the same files"
        )
    found = widened(_read_positions(boxes, rows)).reshape(-1, 4)
    if len(found) and not (found.min() >= 0 and found.max() <= 1):
        outside = int(((found < 0) | (found > 1)).any(dim=1).sum())
        raise TrainError(
            f"table {boxes.name}: {outside:,} of {len(found):,} boxes lie outside 0 to 1; expected "
            "x, y, w, h as shares of the image: import them with the images' sizes"
        )
    return found.to(home)


def hold_words(words: QuestionWords, device: torch.device) -> PositionTable:
    """The words of every distinct question, as ids."""
    first, count = row_spans(words.lengths)
    home = device if device.type == "cuda" else CPU
    ids = torch.from_numpy(words.ids).to(home)
    return PositionTable(ids, first, count, words.specification, device=device)
