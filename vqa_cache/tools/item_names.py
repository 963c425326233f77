"""What people call the items behind keys."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

import numpy as np

from vqa_cache.cache import Cache
from vqa_cache.errors import CacheError
from vqa_cache.keys import Keys, unpack_keys


def item_names(cache: Cache, keys: Collection[bytes]) -> dict[bytes, str]:
    """Names of those keys that a split of the cache knows: an image's id with its split, such as
    "image 17 of vqa2/train", or the question."""
    found: dict[bytes, str] = {}
    for name in cache.splits if keys else ():
        with suppress(CacheError):  # a damaged split is told where it is used
            split = cache.split(name)
            for key, number in _places(split.image_keys, keys):
                for example in np.flatnonzero(split.image_positions == number)[:1]:
                    found.setdefault(key, f"image {split.image_id[example]} of {name}")
            for key, number in _places(split.question_keys, keys):
                found.setdefault(key, f"question {split.question_texts[number]!r} of {name}")
    return found


def _places(there: Keys, keys: Collection[bytes]) -> list[tuple[bytes, int]]:
    """Those of the keys that are there, with their position."""
    return [(key, number) for number, key in enumerate(unpack_keys(there)) if key in keys]
