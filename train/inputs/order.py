"""In which order the examples of a part are trained on and evaluated.

A function of the data, the seed and the epoch. Whether rows are in memory or in files changes
nothing, so a run comes to the same bytes on any machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from train.config.seeds import epoch_order
from train.inputs.large.blocks import Blocks, Windows, deal, in_row_order, shuffle
from train.inputs.parts import Part
from train.inputs.resident import ResidentTable
from vqa_cache.system.device import CPU

Tables = Mapping[str, ResidentTable]


class SampleOrder:
    """The order of a training's examples, epoch after epoch.

    Samples are shuffled in full, or, where a table is large, in windows along its rows.

    Attributes:
        home: where the examples' numbers are: on the GPU where every table is.
    """

    def __init__(
        self, part: Part, tables: Tables, examples: torch.Tensor, *, data_seed: int
    ) -> None:
        """
        Args:
            tables: those that the training reads.
            examples: int64 [n], which examples of the part are trained on.
        """
        self.examples, self.data_seed = examples, data_seed
        homes = {part.items[modality].rows.device for modality in tables}
        self.home = homes.pop() if len(homes) == 1 else CPU
        self._along = along(part, tables)
        self._block = torch.empty(0)
        if self._along is not None:
            self._block = self._along.blocks.of_row[self._along.rows[examples]]
        self._epoch: tuple[int, torch.Tensor, Windows | None] | None = None

    def batch(self, epoch: int, first: int, last: int) -> torch.Tensor:
        """The examples at some places of an epoch, int64 [last - first]; the table is told which
        ones follow."""
        if self._epoch is None or self._epoch[0] != epoch:
            order, windows = self._ordered(epoch)
            self._epoch = epoch, order.to(self.home), windows
        _, order, windows = self._epoch
        if self._along is not None and windows is not None:
            self._along.table.expect(windows)
        return order[first:last]

    def _ordered(self, epoch: int) -> tuple[torch.Tensor, Windows | None]:
        if self._along is None:
            order = epoch_order(len(self.examples), data_seed=self.data_seed, epoch=epoch)
            return self.examples[order], None
        windows = deal(self._along.blocks, data_seed=self.data_seed, epoch=epoch)
        window = windows.of_block[self._block.long()]
        order = shuffle(window, data_seed=self.data_seed, epoch=epoch)
        return self.examples[order], windows


def batches(
    part: Part, tables: Tables, size: int, examples: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Examples of a part, int64 [n], `size` at a time, for a single pass: as they come, or, where a
    table is large, in the order of its rows."""
    if len(examples) == 0:
        return
    large = along(part, tables)
    if large is None:
        yield from examples.split(size)
        return
    rows = large.rows[examples]
    windows = in_row_order(large.blocks, rows)
    for batch in examples[rows.argsort(stable=True)].split(size):
        large.table.expect(windows)
        yield batch


@dataclass(frozen=True)
class Along:
    """The large table along whose rows samples are ordered, and the row of each example of a part,
    int64 [n]."""

    table: ResidentTable
    blocks: Blocks
    rows: torch.Tensor


def along(part: Part, tables: Tables) -> Along | None:
    """The largest of the tables that are large; None where none is."""
    large = [
        Along(table, table.blocks, part.items[modality].rows.cpu())
        for modality, table in tables.items()
        if table.blocks is not None
    ]
    return max(large, key=lambda found: found.blocks.bytes, default=None)
