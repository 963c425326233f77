"""The one door through which stored bytes come: none is given that was not checked.

The bytes of an array are read or mapped at the place that its record names, whatever the container.
Each block of them is compared with its checksum when something of it is asked for the first time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

from vqa_cache.dtypes import numpy_type, torch_type
from vqa_cache.errors import CacheError, DamagedError, is_shortage
from vqa_cache.records.stored import BLOCK_BYTES, Stored
from vqa_cache.remedy import remedy

if TYPE_CHECKING:
    import torch

_PIECE = 256 * 1024  # stays in the processor's cache between reading and checking
_T = TypeVar("_T")
_Piece = tuple["ArrayReader", "memoryview[int]"]


class ArrayReader:
    """One array of a container, as its record describes it.

    Attributes:
        path: the file that holds it.
        dtype: stored type; numpy is given bfloat16 as uint16.
        shape: its first dimension counts rows.
    """

    def __init__(self, folder: Path, record: Stored, name: str) -> None:
        """
        Args:
            folder: what the record's paths start from.
            record: a commit record, of a shard or of a split.
        """
        array = record.arrays[name]
        self.path = folder / record.path(name)
        self.dtype, self.shape = array.dtype, array.shape
        self._name, self._offset, self._bytes = name, array.offset, array.bytes
        self._file_bytes = record.files[array.file].bytes
        self._checksums = array.blocks
        self._unchecked = np.ones(len(self._checksums), dtype=np.bool_)
        self._tensor: torch.Tensor | None = None

    def read(self) -> npt.NDArray[Any]:
        """All of it, in memory. Raises DamagedError."""
        data = np.empty(self.shape, dtype=numpy_type(self.dtype))
        read_all([(self, data.reshape(-1).view(np.uint8).data)])
        return data

    def mapped(self) -> torch.Tensor:
        """All of it [*shape], mapped. Raises DamagedError."""
        self._check(np.flatnonzero(self._unchecked))
        return self._map()

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """Copies of some rows [n, *shape[1:]] by number, int64 [n]. Raises DamagedError."""
        if self._unchecked.any():
            self._check_rows(index.numpy(), index.numpy() + 1)
        return self._map().index_select(0, index)

    def between(self, first: int, last: int) -> torch.Tensor:
        """Rows `first` to `last`, mapped [last - first, *shape[1:]]. Raises DamagedError."""
        self._check_rows(np.array([first]), np.array([last]))
        return self._map()[first:last]

    def read_between(self, first: int, last: int, out: memoryview[int]) -> None:
        """Read rows `first` to `last` into memory of their size. Raises DamagedError."""
        self._check_rows(np.array([first]), np.array([last]))
        with self._opened() as descriptor:
            self._fill(descriptor, first * self._row_bytes, out)

    def will_need(self, spans: Iterable[tuple[int, int]]) -> None:
        """Tell the system which rows, pairs of first and last, will soon be read. Raises
        DamagedError."""
        with self._opened() as descriptor:
            for first, last in spans:
                start, size = first * self._row_bytes, (last - first) * self._row_bytes
                os.posix_fadvise(descriptor, self._offset + start, size, os.POSIX_FADV_WILLNEED)

    @property
    def _row_bytes(self) -> int:
        return self._bytes // self.shape[0] if self.shape[0] else 0

    def _check_rows(self, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]) -> None:
        """Check what lies between rows, int64 [n] each."""
        if not self._unchecked.any():
            return
        edges = np.zeros(len(self._checksums) + 2, dtype=np.int64)
        np.add.at(edges, first * self._row_bytes // BLOCK_BYTES, 1)
        np.add.at(edges, (last * self._row_bytes - 1) // BLOCK_BYTES + 1, -1)
        touched = edges.cumsum()[: len(self._checksums)] > 0
        self._check(np.flatnonzero(touched & self._unchecked))

    def _check(self, blocks: npt.NDArray[np.int64]) -> None:
        if not len(blocks):
            return
        with self._opened() as descriptor:

            def check(number: int) -> None:
                start, digest = number * BLOCK_BYTES, xxhash.xxh3_64()
                stop = min(start + BLOCK_BYTES, self._bytes)
                for at in range(start, stop, _PIECE):
                    digest.update(self._read_piece(descriptor, at, min(_PIECE, stop - at)))
                self._compare(number, digest.hexdigest())

            _on_all_cores(check, blocks.tolist())
        self._unchecked[blocks] = False

    def _read_piece(self, descriptor: int, start: int, size: int) -> bytes:
        piece = os.pread(descriptor, size, self._offset + start)
        if len(piece) < size:  # rarely: a signal, or the end
            rest = bytearray(size - len(piece))
            self._fill(descriptor, start + len(piece), memoryview(rest))
            piece += rest
        return piece

    def _fill(self, descriptor: int, start: int, out: memoryview[int]) -> None:
        at = self._offset + start
        while out:
            count = os.preadv(descriptor, [out], at)
            if count == 0:
                raise self._damaged(f"ends after {at} bytes")
            out, at = out[count:], at + count

    def _read_block(self, number: int, out: memoryview[int]) -> None:
        with self._opened() as descriptor:
            self._fill(descriptor, number * BLOCK_BYTES, out)
        self._compare(number, xxhash.xxh3_64_hexdigest(out))  # of the processor's cache: fast

    def _compare(self, number: int, digest: str) -> None:
        if digest != self._checksums[number]:
            start = self._offset + number * BLOCK_BYTES
            stop = self._offset + min((number + 1) * BLOCK_BYTES, self._bytes)
            raise self._damaged(
                f"bytes {start} to {stop}, of array {self._name!r}, differ from their checksum"
            )

    @contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            with self.path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if size != self._file_bytes:
                    raise self._damaged(f"{size} bytes, expected {self._file_bytes}")
                yield file.fileno()
        except (FileNotFoundError, NotADirectoryError):
            raise self._damaged("missing") from None
        except OSError as error:
            if is_shortage(error):
                raise
            raise self._damaged(f"cannot be read ({error.strerror})") from error

    def _damaged(self, what: str) -> DamagedError:
        return DamagedError(f"{self.path}: {what}; mend it: {remedy(self.path)}")

    def _map(self) -> torch.Tensor:
        """Writing to it never reaches the file; unlike a `mmap` of Python it keeps no file open."""
        import torch

        if self._tensor is None:
            kind = torch_type(self.dtype)
            if not self._bytes:
                self._tensor = torch.empty(self.shape, dtype=kind)
                return self._tensor
            end = self._offset + self._bytes
            with self._opened():
                pass  # its size is right
            try:
                whole = torch.from_file(str(self.path), shared=False, size=end, dtype=torch.uint8)
            except RuntimeError as error:  # no handle or no memory left, say
                told = str(error).partition("\n")[0]
                raise CacheError(f"{self.path}: cannot be mapped ({told})") from error
            self._tensor = whole[self._offset :].view(kind).reshape(self.shape)
        return self._tensor


def memory_of(rows: torch.Tensor) -> memoryview[int]:
    """The bytes of a contiguous tensor, to be read into."""
    import torch

    return rows.reshape(-1).view(torch.uint8).numpy().data


def read_array(folder: Path, record: Stored, name: str) -> npt.NDArray[Any]:
    """One array of a record's container, read into memory (bfloat16 as uint16). Raises
    DamagedError."""
    return ArrayReader(folder, record, name).read()


def read_all(pieces: Sequence[_Piece]) -> None:
    """Read whole arrays into memory of their size, at the speed of a copy. Raises DamagedError."""
    _on_all_cores(
        lambda one: one[0]._read_block(*one[1:]),
        [
            (array, number, target[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES])
            for array, target in pieces
            for number in range(len(array._checksums))
        ],
    )


def _on_all_cores(do: Callable[[_T], None], these: Sequence[_T]) -> None:
    if len(these) < 2:
        for one in these:
            do(one)
        return
    with ThreadPoolExecutor(min(len(these), os.cpu_count() or 1)) as pool:
        for _ in pool.map(do, these):
            pass
