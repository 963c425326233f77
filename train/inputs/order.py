"""In which order the examples of a part are trained on and evaluated.

A function of the data, the seed and the epoch. Whether rows are in memory or in files changes
nothing, so a run comes to the same bytes on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from train.config.seeds import batch_bounds, epoch_order
from train.inputs.batch import InputTable
from train.inputs.large.blocks import Blocks, Windows, deal, shuffle
from train.inputs.parts import Part
from train.inputs.resident import ResidentTable
from vqa_cache.system.device import CPU

Tables = Mapping[str, InputTable]
By = Literal["full", "by_image"]


class SampleOrder:
    """The batches of a training, epoch after epoch.

    What is shuffled is examples, or, by image, images, each of which brings all its examples: then
    every epoch has as many batches, of the same number of images and of varying size.

    What is shuffled is shuffled in full, or, where a table is large, in windows along its rows.

    Attributes:
        steps: batches in an epoch.
        by: what is shuffled.
        smallest: examples that a batch has at least.
        sizes: those that batches can have; by image, any.
        home: where the examples' numbers are: on the GPU where every table is.
    """

    def __init__(
        self,
        part: Part,
        tables: Tables,
        examples: torch.Tensor,
        *,
        batch_size: int,
        data_seed: int,
        by: By = "full",
    ) -> None:
        """
        Args:
            tables: those that the training reads.
            examples: int64 [n], which examples of the part are trained on.
            batch_size: of examples; by image, as near to it as whole images come on average.
        """
        self.data_seed = data_seed
        self.by = by
        homes = {part.items[name].rows.device for name in tables}
        self.home = homes.pop() if len(homes) == 1 else CPU
        self._along = along(part, tables)
        if by == "by_image":
            groups = torch.from_numpy(part.joined.image)[examples]
            _, number, counts = groups.unique(return_inverse=True, return_counts=True)
            self._examples = examples[number.argsort(stable=True)]
            per_batch = max(1, round(batch_size * len(counts) / max(1, len(examples))))
            if self._along is not None and not self._along.name.startswith("image"):
                self._along = None  # images are shuffled; texts of theirs are anywhere
        else:
            self._examples, counts = examples, torch.ones(len(examples), dtype=torch.int64)
            per_batch = batch_size
        self._counts = counts
        self._begin = counts.cumsum(0) - counts
        self._bounds = batch_bounds(len(counts), per_batch)
        self.steps = len(self._bounds)
        least = min((last - first for first, last in self._bounds), default=0)
        self.smallest = int(counts.sort().values[:least].sum())
        self.sizes = {last - first for first, last in self._bounds} if by == "full" else set()
        self._block = torch.empty(0)
        if self._along is not None:
            first_of_each = self._examples[self._begin]
            self._block = self._along.blocks.of_row[self._along.rows[first_of_each]]
        self._epoch: tuple[int, torch.Tensor, torch.Tensor, Windows | None] | None = None

    def batch(self, epoch: int, number: int) -> torch.Tensor:
        """The examples of a batch, int64 [b]; the table is told which ones follow."""
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, *self._ordered(epoch)
        _, examples, edges, windows = self._epoch
        if self._along is not None and windows is not None:
            self._along.table.expect(windows)
        first, last = self._bounds[number]
        return examples[int(edges[first]) : int(edges[last])]

    def _ordered(self, epoch: int) -> tuple[torch.Tensor, torch.Tensor, Windows | None]:
        """Examples of the epoch, and where each of what is shuffled begins among them."""
        windows = None
        if self._along is None:
            order = epoch_order(len(self._counts), data_seed=self.data_seed, epoch=epoch)
        else:
            windows = deal(self._along.blocks, data_seed=self.data_seed, epoch=epoch)
            window = windows.of_block[self._block.long()]
            order = shuffle(window, data_seed=self.data_seed, epoch=epoch)
        counts = self._counts[order]
        edges = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        if len(counts) == len(self._examples):
            places = order
        else:
            places = torch.arange(len(self._examples))
            places += (self._begin[order] - edges[:-1]).repeat_interleave(counts)
        return self._examples[places].to(self.home), edges, windows


@dataclass(frozen=True)
class Along:
    """The large table along whose rows samples are ordered, its name, and the row of each example
    of a part, int64 [n]."""

    name: str
    table: ResidentTable
    blocks: Blocks
    rows: torch.Tensor


def along(part: Part, tables: Tables) -> Along | None:
    """The largest of the tables that are large; None where none is."""
    large = [
        Along(name, table, table.blocks, part.items[name].rows.cpu())
        for name, table in tables.items()
        if isinstance(table, ResidentTable) and table.blocks is not None
    ]
    return max(large, key=lambda found: found.blocks.bytes, default=None)
