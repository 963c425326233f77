"""Questions to page through: hits, near misses and misses, with the cache's small pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from train.config.seeds import derive_seed
from train.report.judged import Judged
from vqa_cache.cache import Cache

KINDS = ("hit", "near", "miss")


def kind_of(judged: Judged, place: int) -> str:
    """Whether an answer is right, the truth is among the five, or neither."""
    return "hit" if judged.right[place] else "near" if judged.near[place] else "miss"


def choose(judged: Judged, cache: Cache, most: int) -> list[int]:
    """Places of at most `most` questions of each kind: those with a small picture first, then
    drawn by their ids, the same ones in every report."""
    pictured = {key: cache.thumbnail(key) is not None for key in {*judged.images} if key}
    drawn = {place: derive_seed(0, "report", judged.ids[place]) for place in range(len(judged))}
    chosen: list[int] = []
    for kind in KINDS:
        own = [place for place in drawn if kind_of(judged, place) == kind]
        own.sort(key=lambda p: (not pictured.get(judged.images[p], False), drawn[p]))
        chosen += own[:most]
    return chosen


def sample(judged: Judged, place: int) -> dict[str, Any]:
    """One question as the page's script reads it."""
    annotators = judged.annotators(place)
    return {
        "kind": kind_of(judged, place),
        "id": judged.ids[place],
        "image": judged.images[place],
        "question": judged.questions[place],
        "type": judged.types[place],
        "truth": judged.truths[place],
        "annotators": list(annotators.items()) if len(annotators) > 1 else [],
        "top": [[answer, round(share, 4)] for answer, share in judged.top[place]],
    }


def pictures(keys: set[str], cache: Cache) -> Mapping[str, str]:
    """Content key -> small picture as a data: address, for those that the cache has."""
    found = {}
    for key in sorted(keys - {""}):
        path = cache.thumbnail(key)
        if path is not None:
            content = base64.b64encode(path.read_bytes()).decode()
            found[key] = f"data:image/jpeg;base64,{content}"
    return found
