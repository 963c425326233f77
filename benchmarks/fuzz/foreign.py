"""Binary files of other programs: arrays to import, pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import h5py
import numpy as np
import torch
from PIL import Image

from benchmarks.fuzz.mutations import changed_bytes
from data.images import open_image
from vqa_cache.tools.importing import collect, examine, key_function, open_sources

Attempt = Callable[[Random], None]
_PICTURES = ("png", "jpg", "webp", "gif", "bmp", "tiff", "ppm", "jp2", "tga", "ico", "pcx")


def prepare_imports(folder: Path) -> Attempt:
    """One file of two rows, broken."""
    rows = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    boxes = np.ones((2, 3, 4), np.float32)
    np.save(folder / "x.npy", rows)
    np.savez(folder / "x.npz", features=rows[0], boxes=boxes[0])
    np.savez_compressed(folder / "y.npz", features=rows[0], mask=np.array([1, 0, 1]))
    torch.save({"ids": ["a", "b"], "embeddings": torch.from_numpy(rows)}, folder / "x.pt")
    torch.save([torch.ones(2, 2), torch.ones(3, 2).bfloat16()], folder / "y.pt")
    with h5py.File(folder / "x.hdf5", "w") as file:
        file["features"], file["boxes"], file["ids"] = rows, boxes, [1, 2]
    with h5py.File(folder / "y.hdf5", "w") as file:
        file.create_dataset("image_features", data=rows[0], compression="gzip")
        file["pos_boxes"] = np.array([[0, 1], [1, 3]])
    (folder / "ids.txt").write_text("a\nb\n")
    (folder / "one.txt").write_text("a\n")
    contents = {
        path: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".txt"
    }
    key_of = key_function("text", None)

    def attempt(draw: Random) -> None:
        path = draw.choice(list(contents))
        broken = folder / "broken" / path.name
        broken.parent.mkdir(exist_ok=True)
        broken.write_bytes(changed_bytes(draw, contents[path], list(contents.values())))
        ids = folder / ("one.txt" if path.suffix == ".npz" else "ids.txt")
        sources = open_sources(path.suffix[1:], [str(broken)], [str(ids)], None)
        for found in sources.values():
            items, _ = collect(found, key_of, skip=False)
            examine(items, "float16")

    return attempt


def prepare_images(folder: Path) -> Attempt:
    """One picture, broken; decoded whole and smaller."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    for suffix in _PICTURES:
        Image.fromarray(noise).save(folder / f"x.{suffix}")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(noise).quantize(16).save(folder / "palette.png", transparency=3)
    contents = [path.read_bytes() for path in sorted(folder.iterdir())]
    path = folder / "broken.jpg"

    def attempt(draw: Random) -> None:
        path.write_bytes(changed_bytes(draw, draw.choice(contents), contents))
        open_image(str(path), at_least=draw.choice((None, 8)))

    return attempt
