"""Finding keys among many: sorted once, then searched."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vqa_cache.keys import Keys


class KeyIndex:
    """Where each of n distinct keys is."""

    def __init__(self, keys: Keys) -> None:
        """
        Args:
            keys: uint8 [n, 16].
        """
        pairs = _halves(keys)
        self._order = _sorted(pairs)
        self._pairs = pairs[self._order]

    def find(self, keys: Keys) -> npt.NDArray[np.int64]:
        """Position of each key [m, 16] -> int64 [m]; -1 where there is none."""
        wanted = _halves(keys)
        pairs, order = self._pairs, self._order
        found = np.full(len(wanted), -1, dtype=np.int64)
        if len(pairs) == 0:
            return found
        place = np.searchsorted(pairs[:, 0], wanted[:, 0])
        open_ = np.flatnonzero(place < len(pairs))
        while len(open_):  # one round, unless first halves of keys collide
            at = pairs[place[open_]]
            same = at[:, 0] == wanted[open_, 0]
            hit = same & (at[:, 1] == wanted[open_, 1])
            found[open_[hit]] = order[place[open_[hit]]]
            open_ = open_[same & ~hit]
            place[open_] += 1
            open_ = open_[place[open_] < len(pairs)]
        return found


def first_occurrences(keys: Keys) -> npt.NDArray[np.bool_]:
    """Which of the keys [n, 16] are not equal to one before them, bool [n]."""
    pairs = _halves(keys)
    order = _sorted(pairs)
    first = np.ones(len(keys), dtype=np.bool_)
    first[order[1:]] = (pairs[order[1:]] != pairs[order[:-1]]).any(axis=1)
    return first


def _halves(keys: Keys) -> npt.NDArray[np.uint64]:
    """Keys [n, 16] as pairs of integers [n, 2] that sort as the bytes do, which numpy does fast."""
    return np.ascontiguousarray(keys).view(">u8").reshape(-1, 2).astype(np.uint64)


def _sorted(pairs: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The order of pairs [n, 2]; equal ones stay in theirs."""
    return np.lexsort((pairs[:, 1], pairs[:, 0])).astype(np.int64)
