"""The temperature that makes a run's probabilities fit its validation split (Guo et al. 2017,
arXiv:1706.04599), found once and kept beside the run.

On the way the model's answers from the cached rows are compared with those that the run wrote down:
another cache, or other code, is found out before it answers anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vqa_cache
from train.errors import TrainError
from train.inputs.parts import item_positions
from train.inputs.resident import ItemRows
from train.inputs.tables import find_tables, modality_of
from train.loop.layout import PREDICTIONS
from train.metrics.temperature import MOST, loss_at, temperature_of
from train.predict.model import Rows, TrainedModel
from train.runs.answered import Answered
from train.runs.folder import Run
from vqa_cache.examples import Split
from vqa_cache.system.durable import write_file
from vqa_cache.table import Table

FILE = "calibration.json"
AGREES = 0.99  # share of them whose answer must be the one that the run wrote down


@dataclass(frozen=True)
class Calibration:
    """What logits are divided by.

    Attributes:
        n: questions of `split` that it was fitted on; 0 where there were none, and `why` says why.
        before, after: mean cross-entropy on them, nats.
        tables: name of an input -> id of the table whose rows they were.
    """

    temperature: float
    split: str
    n: int
    before: float | None
    after: float | None
    tables: Mapping[str, str]
    why: str | None = None


def calibrated(run: Run, cache: Path, model: TrainedModel) -> Calibration:
    """What the run keeps, or fitted now and kept.

    Raises:
        TrainError: the cache's rows do not give the answers that the run wrote down.
    """
    tables = find_tables(vqa_cache.open(cache), run.config.features, "python -m precompute")
    ids = {name: table.id for name, table in tables.items()}
    kept = _kept(run.path / FILE)
    if kept is not None and kept.tables == ids:
        return kept
    split = run.result["best"]["split"]
    if not (run.path / PREDICTIONS.format(split=split)).is_file():
        why = f"the run kept no predictions of {split}, which selected its epoch"
        return Calibration(1.0, split, 0, None, None, ids, why)
    found = fit(run, cache, model, tables, split)
    write_file(run.path / FILE, (json.dumps(asdict(found), indent=1) + "\n").encode())
    return found


def _kept(path: Path) -> Calibration | None:
    try:
        return Calibration(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def fit(
    run: Run, cache: Path, model: TrainedModel, tables: Mapping[str, Table], split: str
) -> Calibration:
    """Fit the temperature on questions of a split. Raises as `calibrated` does."""
    answered = Answered(cache, run.path, run.result, split)
    chosen = np.flatnonzero(answered.counted)
    chosen = chosen[:: max(1, -(-len(chosen) // MOST))]
    rows = cached_rows(answered.examples, answered.rows[chosen], tables, model)
    logits = model.logits(rows)
    found = [model.answers[place] for place in logits.argmax(dim=1).tolist()]
    agree = float(np.mean([answered.answers[i] == a for i, a in zip(chosen, found, strict=True)]))
    if agree < AGREES:
        raise TrainError(
            f"{run.path.name}: of {len(chosen):,} questions of {split} the model answers "
            f"{agree:.1%} as the run wrote down; expected the cache that it was trained on "
            "(--cache) and the code that it was trained with"
        )
    truth = torch.from_numpy(answered.truth[chosen])
    inside = (truth >= 0) & (truth < logits.shape[1])
    ids = {name: table.id for name, table in tables.items()}
    if not inside.any():
        why = f"no question of {split} has an answer in the vocabulary"
        return Calibration(1.0, split, 0, None, None, ids, why)
    logits, truth = logits[inside], truth[inside]
    best = temperature_of(logits, truth)
    before, after = (loss_at(logits, truth, t) for t in (1.0, best))
    return Calibration(best, split, len(truth), before, after, ids)


def cached_rows(
    split: Split, chosen: np.ndarray, tables: Mapping[str, Table], model: TrainedModel
) -> dict[str, Rows]:
    """The rows of some of a split's questions, as the cache has them.

    Args:
        chosen: int64 [n], examples of the split; all their items have rows.
    """
    examples = torch.from_numpy(chosen)
    rows = {}
    for name, table in tables.items():
        items = item_positions(split, modality_of(name))
        offsets = None if items.offsets is None else torch.from_numpy(items.offsets)
        own = ItemRows(torch.from_numpy(items.positions), offsets).select(examples)
        used, place = own.rows.unique(return_inverse=True)
        keys = [items.keys[number].tobytes() for number in used.tolist()]
        values, lengths = stored_rows(table, keys)
        rows[name] = Rows(values, lengths, ItemRows(place, own.offsets))
    if model.words is not None:
        questions = split.question_positions[chosen]
        used, place = np.unique(questions, return_inverse=True)
        texts = [split.question_texts[number] for number in used.tolist()]
        rows["text"] = words_of(texts, place, model)
    return rows


def stored_rows(table: Table, keys: list[bytes]) -> tuple[torch.Tensor, list[int]]:
    """Rows of keys, joined where each has positions of its own, and their lengths."""
    if table.ragged:
        values, offsets = table.ragged_rows(keys)
        return values, offsets.diff().tolist()
    return table.rows(keys), [1] * len(keys)


def words_of(texts: list[str], place: Any, model: TrainedModel) -> Rows:
    """The words of distinct questions, and which of them each example asks."""
    assert model.words is not None
    longest = model.specifications["text"].longest  # type: ignore[union-attr]
    ids = [model.words.ids(text)[:longest] for text in texts]
    values = torch.tensor([number for row in ids for number in row], dtype=torch.int64)
    return Rows(values, [len(row) for row in ids], ItemRows(torch.as_tensor(place)))
