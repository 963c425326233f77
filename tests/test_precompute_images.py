"""Decoding as every image encoder sees it; whatever is wrong with a file is an ItemError."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from precompute.encoders.images import open_image
from precompute.errors import ItemError


def pattern(width: int = 12, height: int = 8) -> Image.Image:
    draw = np.random.default_rng(0)
    return Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(kind: str, picture: Image.Image | None = None, **how: object) -> bytes:
    target = io.BytesIO()
    (picture or pattern()).save(target, kind, **how)
    return target.getvalue()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    source = pattern().convert("L" if mode == "I;16" else mode)
    path = tmp_path / f"x.{'tif' if mode == 'CMYK' else 'png'}"
    source.convert(mode).save(path)
    opened = open_image(str(path))
    assert opened.mode == "RGB"
    assert opened.size == (12, 8)


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    pattern().save(tmp_path / "x.png")
    np.testing.assert_array_equal(
        np.array(open_image(str(tmp_path / "x.png"))), np.array(pattern())
    )


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(1, lambda a: a), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1))],
)
def test_pictures_stand_upright(tmp_path: Path, orientation: int, turned: object) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pattern().save(tmp_path / "x.png", exif=exif)
    expected = turned(np.array(pattern()))  # type: ignore[operator]
    np.testing.assert_array_equal(np.array(open_image(str(tmp_path / "x.png"))), expected)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "missing"),
        (b"", "not an image"),
        (b"hello", "not an image"),
        (encoded("JPEG")[:150], "not an image|cannot be decoded"),
        (encoded("JPEG", pattern(90, 80))[:-900], "cannot be decoded .*truncated"),
        (encoded("PNG", pattern(90, 80))[:-900], "cannot be decoded"),
        (encoded("PNG")[:45] + b"\xff" * 30 + encoded("PNG")[75:], "cannot be decoded"),
        (encoded("GIF")[:-30], "cannot be decoded"),
    ],
    ids=["missing", "empty", "text", "header", "jpeg", "png", "png-data", "gif"],
)
def test_what_is_no_image_is_told_without_its_path(
    tmp_path: Path, content: bytes | None, told: str
) -> None:
    path = tmp_path / "secret-name.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ItemError, match=told) as caught:
        open_image(str(path))
    assert "secret-name" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absurd_size_is_told(tmp_path: Path) -> None:
    content = bytearray(encoded("BMP"))
    content[18:26] = struct.pack("<ii", 60000, 60000)
    (tmp_path / "x.bmp").write_bytes(content)
    with pytest.raises(ItemError, match="cannot be decoded"):
        open_image(str(tmp_path / "x.bmp"))


def exif_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "abc"
    exif[0x011A] = 3
    return encoded("JPEG", pattern(16, 8), exif=exif)


@pytest.mark.filterwarnings("ignore")
def test_no_changed_byte_of_a_picture_gets_past(tmp_path: Path) -> None:
    """Cameras and tools write broken metadata; it must not stop a run with a traceback."""
    escaped = []
    path = tmp_path / "x"
    start = exif_jpeg().index(b"Exif")
    for content, places in (
        (exif_jpeg(), range(start, start + 72)),
        (encoded("PNG", pattern(4, 4)), range(8, 60)),
        (encoded("GIF", pattern(4, 4)), range(60)),
    ):
        for place in places:
            for value in (1, 81, 255):
                path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
                try:
                    open_image(str(path))
                except ItemError:
                    pass
                except Exception as error:
                    escaped.append((place, value, repr(error)[:60]))
    assert escaped == []
