"""Small pictures beside the cache, for people who do not have the images at hand."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

from vqa_cache.cache import Cache
from vqa_cache.keys import Keys, unpack_keys
from vqa_cache.system.durable import write_file
from vqa_cache.withdrawals import withdrawn_images

COUNT = 64
LONGER_SIDE = 96  # pixels


def write_thumbnails(
    cache: Cache, keys: Keys, images: Mapping[bytes, str], *, workers: int
) -> None:
    """Keep pictures of the first COUNT images of a split that have none; unreadable ones are left
    to the encoder to report, and those withdrawn from any table have none.

    Args:
        keys: of the split's images, uint8 [n, 16].
        images: key -> path, at least for these.
        workers: threads that decode and write.

    Raises:
        DamagedError: a record of withdrawn rows is damaged.
    """
    folder = cache.path / "thumbnails"
    folder.mkdir(exist_ok=True)
    withdrawn = withdrawn_images(cache)
    wanted = [key for key in unpack_keys(keys[:COUNT]) if key not in withdrawn]
    targets = {folder / f"{key.hex()}.jpg": images[key] for key in wanted}
    missing = [(target, path) for target, path in targets.items() if not target.exists()]
    with ThreadPoolExecutor(workers) as pool:
        for written in [pool.submit(_write, target, path) for target, path in missing]:
            written.result()


def _write(target: Path, path: str) -> None:
    from data.images import ImageError, open_image

    try:
        picture = open_image(path, at_least=LONGER_SIDE)
    except ImageError:
        return
    picture.thumbnail((LONGER_SIDE, LONGER_SIDE))
    content = BytesIO()
    picture.save(content, "JPEG", quality=85)
    write_file(target, content.getvalue())
