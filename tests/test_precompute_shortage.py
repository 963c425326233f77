"""Memory, file handles or the disk failing: the run stops, and no image is recorded as failed."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

import pytest
import torch
from conftest import RESNET, write_dataset
from PIL import Image

import vqa_cache
from precompute import encode, items
from precompute.encoders.images import pixels_of
from precompute.errors import ItemError, ShortageError
from precompute.pipeline import Request, precompute
from precompute.progress import ConsoleReporter
from vqa_cache.tools.verify import verify

QUIET = ConsoleReporter(quiet=True)
SHORTAGES = [
    MemoryError(),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    OSError(errno.EIO, os.strerror(errno.EIO)),
    OSError(errno.ESTALE, os.strerror(errno.ESTALE)),
    OSError("out of memory error when reading image file"),  # as Pillow's decoders say it
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", images=5, train=5, test=0)


def pixels(picture: Image.Image) -> torch.Tensor:
    return torch.zeros(picture.size[::-1])


@contextmanager
def no_file_handles() -> Iterator[None]:
    """Every file that is opened now would be one too many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_many_open_files_is_no_fault_of_the_image(root: Path) -> None:
    path = str(root / "images" / "0.png")
    with no_file_handles(), pytest.raises(ShortageError) as caught:
        pixels_of(path, pixels)
    told = str(caught.value)
    assert told.startswith(f"image {path}: cannot be read now (Too many open files), which is no")
    assert told.endswith("see to memory, file handles and disk, then run again")
    assert pixels_of(path, pixels).shape == (36, 40)


def test_memory_that_ends_amid_preprocessing_is_no_fault_of_the_image(root: Path) -> None:
    def ending(_picture: Image.Image) -> torch.Tensor:
        raise MemoryError

    with pytest.raises(ShortageError, match=r"0\.png: cannot be read now \(out of memory\)"):
        pixels_of(str(root / "images" / "0.png"), ending)


@pytest.mark.parametrize("error", SHORTAGES, ids=repr)
def test_a_shortage_amid_decoding_stops_the_run_and_is_not_kept(
    root: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --on-error skip the image would otherwise be left out for good."""
    cache = root.parent / "cache"
    request = Request("jsonl", str(root), str(cache), image=(RESNET,), on_error="skip")
    load = Image.Image.load
    calls = []

    def short(self: Image.Image, *rest: object) -> object:
        if str(getattr(self.fp, "name", "")).endswith("3.jpg"):
            calls.append(1)
            raise error
        return load(self, *rest)

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", short)
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", short, raising=False)
    with pytest.raises(ShortageError, match=r"3\.jpg: cannot be read now \(.+\), which is no"):
        precompute(request, QUIET)
    assert calls
    monkeypatch.undo()
    precompute(request, QUIET)
    [table] = vqa_cache.open(cache).tables.values()
    assert (len(table), table.failed) == (5, {})
    assert list(verify(vqa_cache.open(cache))) == []


@pytest.mark.parametrize("where", [items, encode])
def test_a_shortage_amid_hashing_stops_the_run(
    root: Path, where: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(picture: BufferedReader) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(picture.name))

    monkeypatch.setattr(where, "content_key", short)
    request = Request("jsonl", str(root), str(root.parent / "cache"), image=(RESNET,))
    with pytest.raises(ShortageError, match=r"images/\d\.(png|jpg): cannot be read now"):
        precompute(Request(**{**vars(request), "on_error": "skip"}), QUIET)


@pytest.mark.parametrize("damage", ["missing", "truncated", "not an image", "a folder"])
def test_what_the_file_itself_causes_is_recorded(root: Path, damage: str) -> None:
    path = root / "images" / "3.jpg"
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "not an image":
        path.write_bytes(b"text")
    elif damage == "a folder":
        path.mkdir()
    with pytest.raises(ItemError):
        pixels_of(str(path), pixels)
