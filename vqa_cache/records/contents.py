"""What a cache holds beside its tables: the seal over splits and pictures (FORMAT.md section 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from vqa_cache.records.fields import Fields
from vqa_cache.records.names import HEX_32, HEX_64, is_path
from vqa_cache.records.record import Record


@dataclass(frozen=True)
class SplitEntry:
    """The current generation of a split, and the digest of its record."""

    generation: int
    digest: str

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        """Raises DamagedError."""
        return cls(fields.whole("generation", 1), fields.text("digest", HEX_64))


@dataclass(frozen=True)
class PictureEntry:
    """Size and hex XXH3-128 of a small picture's file."""

    bytes: int
    xxh3_128: str

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        """Raises DamagedError."""
        return cls(fields.whole("bytes"), fields.text("xxh3_128", HEX_32))


@dataclass(frozen=True)
class ContentsRecord(Record):
    """The splits by name, "<dataset>/<split>", and the small pictures by their image's key, 32 hex
    digits."""

    format = "vqa-cache/contents"

    splits: Mapping[str, SplitEntry]
    thumbnails: Mapping[str, PictureEntry]

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        splits, pictures = fields.named("splits"), fields.named("thumbnails")
        for name in splits:
            if name.count("/") != 1 or not is_path(name):
                raise fields.wrong("splits", "names like dataset/split")
        if not all(map(HEX_32.fullmatch, pictures)):
            raise fields.wrong("thumbnails", "keys of 32 hex digits")
        return cls(
            {name: SplitEntry.parse(one) for name, one in splits.items()},
            {key: PictureEntry.parse(one) for key, one in pictures.items()},
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "splits": {name: dict(vars(entry)) for name, entry in self.splits.items()},
            "thumbnails": {key: dict(vars(entry)) for key, entry in self.thumbnails.items()},
        }
