"""Decoding as every image encoder sees it; whatever is wrong with a file is an ImageError."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.measuring.warm import ROOT
from data.images import IMAGE_FORMATS, MOST_ELONGATED, ImageError, open_image

EXIF = b"Exif\0\0"


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
    with pytest.raises(ImageError, match="has 32-bit pixels, whose range nothing tells; save it"):
        open_image(str(tmp_path / "x.tif"))


def test_a_large_picture_is_read_in_silence(tmp_path: Path) -> None:
    pattern().save(tmp_path / "x.png")
    program = (
        "import sys; from PIL import Image; Image.MAX_IMAGE_PIXELS = 50;"
        "from data.images import open_image; open_image(sys.argv[1])"
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
    with pytest.raises(ImageError, match=told) as caught:
        open_image(str(path))
    assert "secret-name" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absurd_size_is_told(tmp_path: Path) -> None:
    content = bytearray(encoded("BMP"))
    content[18:26] = struct.pack("<ii", 60000, 60000)
    (tmp_path / "x.bmp").write_bytes(content)
    with pytest.raises(ImageError, match="cannot be decoded"):
        open_image(str(tmp_path / "x.bmp"))


@pytest.mark.parametrize("kind", IMAGE_FORMATS)
def test_every_format_is_one_that_pillow_opens_by_itself(kind: str) -> None:
    """A name that it does not know would end every file that is no picture with a KeyError."""
    Image.init()
    assert kind in Image.OPEN or kind == "AVIF"  # where Pillow was built with it


def test_two_pictures_in_one_jpeg_are_read_by_the_first(tmp_path: Path) -> None:
    pattern().save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[pattern(9, 9)])
    assert open_image(str(tmp_path / "x.jpg")).size == (12, 8)


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
                except ImageError:
                    pass
                except Exception as error:
                    escaped.append((place, value, repr(error)[:60]))
    assert escaped == []


# ---------------------------------------------------------------- metadata


def chunk(kind: bytes, content: bytes, checksum: bytes | None = None) -> bytes:
    checksum = zlib.crc32(kind + content).to_bytes(4) if checksum is None else checksum
    return len(content).to_bytes(4) + kind + content + checksum


def png(*chunks: bytes) -> bytes:
    """The pattern with chunks behind its header."""
    content = encoded("PNG")
    return content[:33] + b"".join(chunks) + content[33:]


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2) + content


def jpeg(*segments: bytes) -> bytes:
    """The pattern with segments behind its start."""
    content = encoded("JPEG")
    return content[:2] + b"".join(segments) + content[2:]


def exif(*entries: tuple[int, int, bytes]) -> bytes:
    """EXIF data of entries (tag, type, 8 bytes of value at most): turned a quarter, and they."""
    every = ((0x0112, 3, struct.pack("<H", 6)), *entries)
    after = 8 + 2 + 12 * len(every) + 4
    rows, values = b"", b""
    for tag, kind, value in every:
        place = value.ljust(4, b"\0")
        if len(value) > 4:
            place = struct.pack("<I", after + len(values))
            values += value
        rows += struct.pack("<HHI", tag, kind, 1) + place
    return b"II*\0" + struct.pack("<IH", 8, len(every)) + rows + bytes(4) + values


UNWRITABLE = {
    "negative": exif((0x011A, 10, struct.pack("<ii", -72, 1))),
    "nan": exif((0x011A, 12, struct.pack("<d", float("nan")))),
    "text": exif((0x011A, 2, b"abc")),
    "short": exif((0x0100, 8, struct.pack("<h", -3))),
}


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("fault", list(UNWRITABLE))
def test_an_orientation_counts_beside_metadata_that_cannot_be_written_again(
    tmp_path: Path, kind: str, fault: str
) -> None:
    data = UNWRITABLE[fault]
    content = png(chunk(b"eXIf", data)) if kind == "png" else jpeg(segment(0xE1, EXIF + data))
    (tmp_path / "x").write_bytes(content)
    (tmp_path / "plain").write_bytes(png() if kind == "png" else jpeg())
    expected = np.rot90(np.array(open_image(str(tmp_path / "plain"))), -1)
    np.testing.assert_array_equal(np.array(open_image(str(tmp_path / "x"))), expected)


LARGE = zlib.compress(b"A" * 5_000_000)
BAD_METADATA = {
    "eXIf that is none": png(chunk(b"eXIf", b"hello there, no TIFF")),
    "eXIf with a wrong checksum": png(chunk(b"eXIf", b"abc", bytes(4))),
    "5 MB of text": png(chunk(b"zTXt", b"Comment\0\0" + LARGE)),
    "5 MB of XMP": png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE)),
    "70 MB of texts": png(*[chunk(b"zTXt", b"C\0\0" + LARGE)] * 14),
    "a large ICC profile": png(chunk(b"iCCP", b"icc\0\0" + LARGE)),
    "unknown compression": png(chunk(b"iCCP", b"icc\0\5" + LARGE)),
    "text with a wrong checksum": png(chunk(b"tEXt", b"Comment\0abc", bytes(4))),
    "short pHYs": png(chunk(b"pHYs", b"ab")),
    "short gAMA": png(chunk(b"gAMA", b"")),
    "short acTL": png(chunk(b"acTL", b"ab")),
    "JPEG, short JFIF": jpeg(segment(0xE0, b"JFIF\0")),
    "JPEG, short Adobe": jpeg(segment(0xEE, b"Adobe\0")),
    "JPEG, short ICC": jpeg(segment(0xE2, b"ICC_PROFILE\0")),
    "JPEG, EXIF that is none": jpeg(segment(0xE1, EXIF + b"hello there")),
    "JPEG, MPF that is none": jpeg(segment(0xE2, b"MPF\0garbage")),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fault", list(BAD_METADATA))
def test_no_metadata_keeps_a_healthy_picture_from_being_read(tmp_path: Path, fault: str) -> None:
    (tmp_path / "x").write_bytes(BAD_METADATA[fault])
    (tmp_path / "plain").write_bytes(jpeg() if fault.startswith("JPEG") else png())
    np.testing.assert_array_equal(
        np.array(open_image(str(tmp_path / "x"))), np.array(open_image(str(tmp_path / "plain")))
    )


@pytest.mark.filterwarnings("ignore")
def test_an_orientation_counts_beside_a_chunk_that_is_left_out(tmp_path: Path) -> None:
    turned = chunk(b"eXIf", exif())
    (tmp_path / "x").write_bytes(png(chunk(b"pHYs", b"ab"), turned))
    expected = np.rot90(np.array(pattern()), -1)
    np.testing.assert_array_equal(np.array(open_image(str(tmp_path / "x"))), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("content", [png(chunk(b"pHYs", b"ab"))[:-90], jpeg()[:-300]])
def test_a_truncated_picture_stays_unreadable_without_its_metadata(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ImageError):
        open_image(str(tmp_path / "x"))


def test_warnings_name_the_picture_once(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(png(chunk(b"eXIf", b"hello there, no TIFF")))
    program = (
        "import sys; from data.images import open_image; [open_image(p) for p in sys.argv[1:]]"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "one.png"), str(tmp_path / "two.png")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"note: image {tmp_path / 'one.png'}: EXIF data that cannot be read (")


# ---------------------------------------------------------------- transparency


def half_clear(mode: str) -> Image.Image:
    """Red, its left half fully transparent."""
    picture = Image.new("RGBA", (12, 8), (255, 0, 0, 255))
    picture.paste((255, 0, 0, 0), (0, 0, 6, 8))
    return picture.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(tmp_path: Path, mode: str) -> None:
    half_clear(mode).save(tmp_path / "x.png")
    opened = np.array(open_image(str(tmp_path / "x.png")))
    assert (opened[:, :6] == 255).all()
    assert (opened[:, 6:] != 255).any()
    clear = half_clear("RGBA")
    clear.putalpha(128)
    clear.save(tmp_path / "half.png")
    np.testing.assert_array_equal(
        np.array(open_image(str(tmp_path / "half.png")))[0, 0], [255, 127, 127]
    )


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_a_transparent_colour_is_laid_on_white(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        picture, key = Image.fromarray(np.full((8, 12), 513, np.uint16)), 513
    else:
        picture = Image.new(mode, (12, 8), 9 if mode == "L" else (1, 2, 3))
        key = 9 if mode == "L" else (1, 2, 3)
    picture.save(tmp_path / "x.png", transparency=key)
    assert (np.array(open_image(str(tmp_path / "x.png"))) == 255).all()


# ---------------------------------------------------------------- sizes


def test_a_picture_too_elongated_to_be_resized_is_refused_before_it_is_decoded(
    tmp_path: Path,
) -> None:
    """Its shorter side made 224, one of 30000x1 would take gigabytes."""
    for size, fails in (((30000, 1), True), ((1, 101), True), ((MOST_ELONGATED, 1), False)):
        Image.new("RGB", size).save(tmp_path / "x.png")
        if not fails:
            assert open_image(str(tmp_path / "x.png")).size == size
            continue
        with pytest.raises(ImageError, match=rf"is {size[0]}x{size[1]} pixels, one side more than"):
            open_image(str(tmp_path / "x.png"))
