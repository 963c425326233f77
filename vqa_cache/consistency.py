"""Whether what arrays hold fits together: checksums tell damage, not what was written wrongly."""

from __future__ import annotations

import codecs
from typing import Any

import numpy as np
import numpy.typing as npt

from vqa_cache.errors import DamagedError

_BLOCK = 2**24  # bytes decoded at once
_CONTINUES = 0x80  # of a UTF-8 byte, with the mask 0xC0: not the first of its character


def check_edges(edges: npt.NDArray[Any], total: int, what: str, *, least: int = 0) -> None:
    """Offsets of n pieces among `total` elements, int64 [n + 1].

    Args:
        what: for the message: file and array.
        least: elements of a piece.

    Raises:
        DamagedError: they do not begin with 0, end with `total`, or a piece is shorter.
    """
    whole = len(edges) > 0 and (int(edges[0]), int(edges[-1])) == (0, total)
    if not whole or (len(edges) > 1 and int(np.diff(edges).min()) < least):
        raise DamagedError(
            f"{what}: does not cut {total} elements into {max(len(edges) - 1, 0)} pieces of "
            f"{least} or more; it was written so"
        )


def check_positions(positions: npt.NDArray[Any], count: int, what: str, *, none: bool) -> None:
    """Positions in a list of `count` things.

    Args:
        none: whether -1, which means none, may be among them.

    Raises:
        DamagedError: one is outside.
    """
    low = -1 if none else 0
    if len(positions) and not (low <= int(positions.min()) and int(positions.max()) < count):
        raise DamagedError(
            f"{what}: positions {int(positions.min())} to {int(positions.max())}, expected "
            f"{low} to {count - 1}; it was written so"
        )


def check_texts(joined: npt.NDArray[Any], edges: npt.NDArray[Any], what: str) -> None:
    """Texts as joined bytes and offsets.

    Raises:
        DamagedError: the offsets do not cut the bytes, or a piece is no UTF-8.
    """
    check_edges(edges, len(joined), what)
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(joined), _BLOCK):  # all texts of a split at once are large
            decoder.decode(joined[start : start + _BLOCK].tobytes())
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise DamagedError(f"{what}: is no UTF-8 ({error.reason}); it was written so") from error
    inner = edges[edges < len(joined)]
    if (joined[inner] & 0xC0 == _CONTINUES).any():
        raise DamagedError(f"{what}: a text begins inside a character; it was written so")
