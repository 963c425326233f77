"""Large tables in blocks of neighbouring rows: how an epoch is shuffled, and what is read when.

A shuffle of single rows would read a large table at random. So blocks are dealt to windows: the
blocks of a window are read in the order of the files, and its examples are shuffled thoroughly.
Blocks are counted within the shards that a run uses, so a cache may grow between an attempt of a
run and the next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from train.config.seeds import derive_seed, epoch_order
from vqa_cache.table import Table

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BlockSizes:
    """Constants: with others, the same seed gives another order.

    Attributes:
        large: bytes (as stored) of a table's rows beyond which an epoch is shuffled in windows.
        window: bytes of a window at most.
        block: bytes of a block at most; one row at least.
    """

    large: int = 2 * 2**30
    window: int = 128 * 2**20
    block: int = 128 * 2**10


BLOCK_SIZES = BlockSizes()


@dataclass(frozen=True)
class Blocks:
    """The blocks of a table that hold rows which a run uses.

    Attributes:
        of_row: int32 [rows], the block of each row; -1 = the run does not use it.
        first, count: int64 [blocks], where a block begins among the rows of all shards (see
            `MappedRows`), and how many rows it has, unused ones between the others included.
        shard: int64 [blocks], never decreasing.
        per_window: blocks in a window at most.
        bytes: of the used rows as stored.
    """

    of_row: torch.Tensor
    first: torch.Tensor
    count: torch.Tensor
    shard: torch.Tensor
    per_window: int
    bytes: int

    def __len__(self) -> int:
        return len(self.first)

    @property
    def windows(self) -> int:
        """How many an epoch is shuffled in."""
        return _ceil_div(len(self), self.per_window)

    def of_rows(self, rows: Rows) -> Blocks:
        """The same for some of the rows, int64 [k], numbered anew."""
        return replace(self, of_row=self.of_row[torch.from_numpy(rows)])


@dataclass(frozen=True)
class Windows:
    """Which blocks are read together.

    Attributes:
        of_block: int64 [blocks], the number of a block's window; -1 = in none.
        count: how many windows there are.
    """

    of_block: torch.Tensor
    count: int


def cut(table: Table, used: Rows, sizes: BlockSizes) -> Blocks | None:
    """The blocks of a table; None where the rows in use are not large.

    Args:
        used: rows of the table, distinct.
    """
    used_bytes = len(used) * table.row_bytes
    if used_bytes <= sizes.large:
        return None
    rows_each = max(1, sizes.block // table.row_bytes)
    shard_rows = np.array([record.rows for record in table.shards], dtype=np.int64)
    blocks_before = np.concatenate([[0], np.cumsum(-(-shard_rows // rows_each))])
    rows_before = np.concatenate([[0], np.cumsum(shard_rows)])
    shard, row = table.places
    every = blocks_before[shard[used]] + row[used] // rows_each
    kept, block = np.unique(every, return_inverse=True)
    of_row = np.full(len(table), -1, dtype=np.int32)
    of_row[used] = block
    own_shard = np.searchsorted(blocks_before, kept, side="right") - 1
    start = (kept - blocks_before[own_shard]) * rows_each
    return Blocks(
        of_row=torch.from_numpy(of_row),
        first=torch.from_numpy(rows_before[own_shard] + start),
        count=torch.from_numpy(np.minimum(rows_each, shard_rows[own_shard] - start)),
        shard=torch.from_numpy(own_shard),
        per_window=max(1, sizes.window // (rows_each * table.row_bytes)),
        bytes=used_bytes,
    )


def deal(blocks: Blocks, *, data_seed: int, epoch: int) -> Windows:
    """Deal blocks to the windows of an epoch: of W neighbouring blocks, each of the W windows is
    given one at random, so that every window is a sample of the whole table, sorted or not."""
    windows = blocks.windows
    rounds = _ceil_div(len(blocks), windows)
    generator = torch.Generator().manual_seed(derive_seed(data_seed, "windows", epoch))
    drawn = torch.rand((rounds, windows), generator=generator, dtype=torch.float64)
    return Windows(drawn.argsort(dim=1).flatten()[: len(blocks)], windows)


def in_row_order(blocks: Blocks, rows: torch.Tensor) -> Windows:
    """Windows of neighbouring blocks, those of the rows int64 [n] alone."""
    wanted = torch.zeros(len(blocks), dtype=torch.bool)
    wanted[blocks.of_row[rows].long()] = True
    number = (wanted.cumsum(0) - 1) // blocks.per_window
    windows = _ceil_div(int(wanted.sum()), blocks.per_window)
    return Windows(torch.where(wanted, number, -1), windows)


def shuffle(window: torch.Tensor, *, data_seed: int, epoch: int) -> torch.Tensor:
    """The order of n samples, int64 [n]: the full shuffle of the epoch, taken window by window.

    Args:
        window: int64 [n], the window of each sample.
    """
    order = epoch_order(len(window), data_seed=data_seed, epoch=epoch)
    return order[window[order].argsort(stable=True)]


def _ceil_div(number: int, by: int) -> int:
    return -(-number // by)
