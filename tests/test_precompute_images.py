"""Decoding as every image encoder sees it; whatever is wrong with a file is an ItemError."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.measuring.warm import ROOT
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


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_of_grey_are_scaled_and_not_clipped(tmp_path: Path, order: str) -> None:
    grey = np.linspace(0, 65535, 96).reshape(8, 12).astype(order)
    Image.fromarray(grey).save(tmp_path / "x.tif")
    opened = np.array(open_image(str(tmp_path / "x.tif")))
    np.testing.assert_array_equal(opened, np.repeat((grey >> 8)[..., None], 3, axis=2))


def test_sixteen_bits_of_grey_stand_upright(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 96).reshape(8, 12).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey).save(tmp_path / "x.png", exif=exif)
    opened = np.array(open_image(str(tmp_path / "x.png")))[..., 0]
    np.testing.assert_array_equal(opened, np.rot90(grey >> 8, -1))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_of_no_known_range_are_refused(tmp_path: Path, kind: type) -> None:
    Image.fromarray(np.arange(96).reshape(8, 12).astype(kind)).save(tmp_path / "x.tif")
    with pytest.raises(ItemError, match="has 32-bit pixels, whose range nothing tells; save it"):
        open_image(str(tmp_path / "x.tif"))


def test_a_large_picture_is_read_in_silence(tmp_path: Path) -> None:
    pattern().save(tmp_path / "x.png")
    program = (
        "import sys; from PIL import Image; Image.MAX_IMAGE_PIXELS = 50;"
        "from precompute.encoders.images import open_image; open_image(sys.argv[1])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "x.png")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


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
