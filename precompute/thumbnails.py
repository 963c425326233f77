"""Small pictures beside the cache, for people who do not have the images at hand."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from precompute.errors import ItemError
from vqa_cache.durable import write_file
from vqa_cache.keys import Keys, unpack_keys

COUNT = 64
LONGER_SIDE = 96  # pixels


def write_thumbnails(cache: Path, keys: Keys, images: Mapping[bytes, str]) -> None:
    """Keep pictures of the first COUNT images of a split that have none; unreadable ones are left
    to the encoder to report."""
    from precompute.encoders.images import open_image

    folder = cache / "thumbnails"
    folder.mkdir(exist_ok=True)
    for key in unpack_keys(keys[:COUNT]):
        target = folder / f"{key.hex()}.jpg"
        if target.exists():
            continue
        try:
            picture = open_image(images[key])
        except ItemError:
            continue
        picture.thumbnail((LONGER_SIDE, LONGER_SIDE))
        content = BytesIO()
        picture.save(content, "JPEG", quality=85)
        write_file(target, content.getvalue())
