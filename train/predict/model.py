"""A run's trained model without its training data: rows in, logits out.

Rows take the way that they take in an evaluation: the same tables of rows, normaliser, batch and
forward pass, so that a cached row and an equal new one give equal logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from train.config.precisions import COMPUTE_TYPES, Precision
from train.config.schema import Config
from train.engine.build import build_model, load_weights, vector_width
from train.engine.outputs import EVALUATION_BATCH
from train.engine.precision import check_precision
from train.engine.step import forward
from train.errors import TrainError
from train.inputs.batch import InputTable, gather
from train.inputs.device import rng_devices
from train.inputs.load import TrainingData
from train.inputs.normaliser import Normaliser
from train.inputs.positions import PositionTable, row_spans
from train.inputs.resident import ItemRows, ResidentTable
from train.inputs.specification import Grid, Specification, Tokens, Vector, Words
from train.inputs.vocabulary import Vocabulary
from train.inputs.words import WordVocabulary, read_description
from train.layers.attention import Seen, watching
from train.loop.checkpoint import load_checkpoint
from train.predict.sources import Sources
from vqa_cache.system.device import choose_device


@dataclass(frozen=True)
class Rows:
    """Distinct rows of an input, joined, and which of them each of n examples has.

    Attributes:
        values: [positions, ...] in stored type, or int64 [positions] ids of words.
        lengths: positions of each row; ones where a row has one shape.
        items: by example.
    """

    values: torch.Tensor
    lengths: Sequence[int]
    items: ItemRows


@dataclass(frozen=True)
class _Part:
    items: Mapping[str, ItemRows]


class TrainedModel:
    """A run's model with its weights.

    Attributes:
        answers: the texts that it chooses from.
        words: of its question branch; None where that reads no words.
        specifications: name of an input -> what a batch of it is.
        temperature: what it was trained to have its logits divided by.
    """

    def __init__(self, config: Config, checkpoint: Path, sources: Sources, kept: str) -> None:
        """
        Args:
            kept: the precision that the run computed in.

        Raises:
            TrainError: the checkpoint is damaged, or does not fit the config or the tables.
        """
        tensors, described = load_checkpoint(checkpoint)
        self._config, self._trained_vectors = config, sources.answer_vectors
        self.answers: tuple[str, ...] = tuple(described["answers"])
        self.normalised: bool = described["answers_normalised"]
        self._types = tuple(described.get("answer_types", ()))
        self.temperature: float = described["temperature"]
        self.device = choose_device()
        self.precision = _precision(kept, self.device)
        self.specifications = {
            name: _with_vectors(one, tensors) if isinstance(one, Words) else one
            for name, one in sources.specifications.items()
        }
        words = described.get("words")
        self.words: WordVocabulary | None = None if words is None else read_description(words)
        self._normalisers = {
            name: _normaliser(name, described, tensors) for name in self.specifications
        }
        data = self._training_data()
        with torch.random.fork_rng(devices=rng_devices(self.device)):
            self.model = build_model(config, data, list(self.specifications)).eval()
        try:
            load_weights(self.model, tensors)
        except RuntimeError as error:
            first = " ".join(str(error).split())
            raise TrainError(
                f"checkpoint {checkpoint}: does not fit the run's model and tables: {first}"
            ) from None

    def check_offers(self) -> None:
        """Raises TrainError where the head knows its own answers alone."""
        if self._trained_vectors is None or not hasattr(self.model.head, "offer"):
            raise TrainError(
                f"head {self._config.head.name!r} knows the answers that it was trained on alone; "
                "--answers takes a run whose head compares answers' vectors (head.name = cosine)"
            )

    def offer(self, answers: Sequence[str], vectors: torch.Tensor) -> None:
        """Choose among other answers. Raises TrainError where the head cannot.

        Args:
            vectors: of their texts, float32 [answers, width].
        """
        self.check_offers()
        offer: Any = self.model.head.offer
        try:
            offer(vectors, self._trained_vectors)
        except ValueError as error:
            raise TrainError(f"--answers: head {self._config.head.name!r}: {error}") from None
        self.answers = tuple(answers)

    def logits(self, rows: Mapping[str, Rows]) -> torch.Tensor:
        """Of n examples, float32 [n, answers] on the CPU, divided by the trained temperature."""
        tables = {
            name: self._held(name, one, _as_long(self.specifications[name], one.lengths))
            for name, one in rows.items()
        }
        part = _Part({name: _at(tables[name], one.items) for name, one in rows.items()})
        found = []
        with torch.no_grad():
            for span in torch.arange(len(next(iter(rows.values())).items)).split(EVALUATION_BATCH):
                inputs = gather(part, tables, span)
                found.append(forward(self.model, inputs, self.precision).cpu())
        return torch.cat(found) / self.temperature

    def looks(self, rows: Mapping[str, Rows]) -> torch.Tensor | None:
        """Where the attention looked, float32 [n, h, w], of which each example's sum to 1: the
        mean over its hops, glimpses and words. None without an attention over a grid, and of
        one of a user's own that does not ask `attention_weights`."""
        grid = self.specifications.get("image")
        attention: Any = self.model.attention
        if attention is None or not isinstance(grid, Grid):
            return None
        found: list[torch.Tensor | None] = []
        with watching() as seen:
            hooks = [
                attention.register_forward_pre_hook(lambda *_: seen.clear()),
                attention.register_forward_hook(lambda *_: found.append(looked_at(seen, grid))),
            ]
            try:
                self.logits(rows)
            finally:
                for hook in hooks:
                    hook.remove()
        looked = [one for one in found if one is not None]
        return torch.cat(looked) if looked else None

    def normalise(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Rows of an input as the model sees them, float32 [b, d] or [b, n, d]; copies."""
        width = values.shape[-1]
        rows = self._normalisers[name](values.clone().reshape(-1, width))
        return rows.view(*values.shape[:-1], rows.shape[1])

    def _held(self, name: str, rows: Rows, one: Specification) -> InputTable:
        """Rows ready to be gathered."""
        kind, normaliser = COMPUTE_TYPES[self.precision], self._normalisers[name]
        values = rows.values
        if isinstance(one, Vector | Grid):
            flat = values.reshape(len(rows.lengths), -1)
            return ResidentTable(
                flat, np.arange(len(flat)), normaliser, specification=one, compute_type=kind,
                home=self.device, device=self.device,
            )  # fmt: skip
        lengths = np.asarray(rows.lengths, dtype=np.int64)
        if isinstance(one, Tokens):
            values = normaliser(values.reshape(-1, one.d).float()).to(kind)
            one = replace(one, d=values.shape[1])
            lengths = lengths * (len(values) // max(1, int(lengths.sum())))  # of a grid: its cells
        first, count = row_spans(lengths)
        return PositionTable(
            values.to(self.device), first, count, one, compute_type=kind, device=self.device
        )

    def _training_data(self) -> TrainingData:
        """What a model is built from: inputs of one row of zeros."""
        none = ItemRows(torch.zeros(0, dtype=torch.int64))
        tables = {}
        for name, one in self.specifications.items():
            empty = (
                torch.zeros(1, dtype=torch.int64)
                if isinstance(one, Words)
                else torch.zeros(1, vector_width(one))
            )
            tables[name] = self._held(name, Rows(empty, [1], none), one)
        return TrainingData(
            parts={}, selection="", held_out=False,
            vocabulary=Vocabulary(self.answers, self.normalised, types=self._types), tables=tables,
            precision=self.precision, words=None, answer_vectors=self._trained_vectors,
            digest="", digests={}, notes=(),
        )  # fmt: skip


def looked_at(seen: Seen, grid: Grid) -> torch.Tensor | None:
    """The weights of a grid's positions among those that an attention made: of the grid alone,
    which needs no mask, or of every pair of a word with a position, joined."""
    cells = grid.longest
    own = [
        one for one, masked in seen if one.shape[-1] % cells == 0 and (not masked or one.ndim > 2)
    ]
    if not own:
        return None
    means = [one.float().reshape(len(one), -1, cells).mean(dim=1) for one in own]
    mean = torch.stack(means).mean(dim=0)
    return (mean / mean.sum(dim=1, keepdim=True)).view(-1, grid.h, grid.w).cpu()


def _as_long(one: Specification, lengths: Sequence[int]) -> Specification:
    """For rows that may be longer than those of the training."""
    if isinstance(one, Tokens | Words):
        return replace(one, longest=max([1, *lengths]))
    return one


def _at(table: InputTable, items: ItemRows) -> ItemRows:
    """Row numbers where the table takes them."""
    return items if items.offsets is not None else ItemRows(items.rows.to(table.home))


def _precision(kept: str, device: torch.device) -> Precision:
    """That of the run, or fp32 where this device has not got it."""
    precision: Precision = kept  # type: ignore[assignment]
    try:
        check_precision(precision, device, precision)
    except TrainError:
        return "fp32"
    return precision


def _normaliser(
    name: str, described: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> Normaliser:
    begin = f"normalise.{name}."
    kept = {key.removeprefix(begin): one for key, one in tensors.items() if key.startswith(begin)}
    return Normaliser(described["inputs"][name]["normalise"], **kept)


def _with_vectors(one: Words, tensors: Mapping[str, torch.Tensor]) -> Words:
    """With vectors as wide as those that the embedding began with; the weights come afterwards."""
    for name, tensor in tensors.items():
        if name.startswith("question.") and tensor.ndim == 2 and len(tensor) == one.size:
            return replace(one, vectors=torch.zeros(tensor.shape))
    return one
