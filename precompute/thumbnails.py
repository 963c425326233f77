"""Small pictures beside the cache, for people who do not have the images at hand."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

from precompute.errors import ShortageError
from vqa_cache.cache import Cache
from vqa_cache.contents import (
    THUMBNAILS,
    list_contents,
    picture_entry,
    picture_path,
    picture_problem,
    read_contents,
)
from vqa_cache.keys import Keys, unpack_keys
from vqa_cache.records.contents import PictureEntry
from vqa_cache.system.durable import make_folder, remove, write_file
from vqa_cache.withdrawals import withdrawn_images

COUNT = 64
LONGER_SIDE = 96  # pixels


def write_thumbnails(
    cache: Cache, split: str, keys: Keys, images: Mapping[bytes, str], *, workers: int
) -> None:
    """Keep pictures of the first COUNT images of a split that have none, or a damaged one;
    unreadable images are left to the encoder to report, and those withdrawn from any table have
    none. The split and its pictures are listed.

    Args:
        split: its name, "<dataset>/<split>"; it has been committed.
        keys: of the split's images, uint8 [n, 16].
        images: key -> path, at least for these.
        workers: threads that decode and write.

    Raises:
        DamagedError: a record of withdrawn rows is damaged.
    """
    make_folder(cache.path / THUMBNAILS, cache.path)
    withdrawn = withdrawn_images(cache)
    listed = read_contents(cache.path).thumbnails
    gone = [key.hex() for key in withdrawn if key.hex() in listed]
    for key in gone:  # of a withdrawal that was interrupted
        remove(picture_path(cache.path, key))
    wanted = {key.hex(): images[key] for key in unpack_keys(keys[:COUNT]) if key not in withdrawn}
    missing = [
        key for key in wanted if key not in listed or picture_problem(cache.path, key, listed[key])
    ]
    with ThreadPoolExecutor(workers) as pool:
        made = pool.map(lambda key: _write(picture_path(cache.path, key), wanted[key]), missing)
        entries = zip(missing, made, strict=True)
        written = {key: entry for key, entry in entries if entry is not None}
    list_contents(cache.path, splits=[split], pictures=written, gone=gone)


def _write(target: Path, path: str) -> PictureEntry | None:
    from data.images import ImageError, open_image

    try:
        picture = open_image(path, at_least=LONGER_SIDE)
    except ImageError:
        return None
    except (OSError, MemoryError) as error:
        raise ShortageError.of(f"image {path}", error) from error
    picture.thumbnail((LONGER_SIDE, LONGER_SIDE))
    content = BytesIO()
    picture.save(content, "JPEG", quality=85)
    write_file(target, content.getvalue())
    return picture_entry(content.getvalue())
